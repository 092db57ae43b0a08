// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Removes all segments (-m), sets (-s) and queues (-q) that it can see, whoever made them; without an
// option those of all kinds.

#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

union semun {
	int val;
	struct semid_ds *buf;
	struct seminfo *info;
};

static int wanted(int argc, char **argv, const char *kind) {
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], kind))
			return 1;
	return argc == 1;
}

int main(int argc, char **argv) {
	struct shm_info segments;
	struct seminfo sets;
	struct msginfo queues;
	struct shmid_ds segment;
	struct semid_ds set;
	struct msqid_ds queue;
	int last = shmctl(0, SHM_INFO, (struct shmid_ds *)&segments);
	for (int index = 0; wanted(argc, argv, "-m") && index <= last; index++) {
		int id = shmctl(index, SHM_STAT, &segment);
		if (id != -1 && shmctl(id, IPC_RMID, NULL) == -1)
			perror("IPC_RMID of a segment");
	}
	last = semctl(0, 0, SEM_INFO, (union semun){.info = &sets});
	for (int index = 0; wanted(argc, argv, "-s") && index <= last; index++) {
		int id = semctl(index, 0, SEM_STAT, (union semun){.buf = &set});
		if (id != -1 && semctl(id, 0, IPC_RMID) == -1)
			perror("IPC_RMID of a set");
	}
	last = msgctl(0, MSG_INFO, (struct msqid_ds *)&queues);
	for (int index = 0; wanted(argc, argv, "-q") && index <= last; index++) {
		int id = msgctl(index, MSG_STAT, &queue);
		if (id != -1 && msgctl(id, IPC_RMID, NULL) == -1)
			perror("IPC_RMID of a queue");
	}
	return 0;
}
