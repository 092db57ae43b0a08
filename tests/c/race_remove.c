// SPDX-License-Identifier: MIT OR Apache-2.0
//
// One of several racers who create, find, attach, detach and remove the segments of a few keys,
// as fast as they can and without regard for one another. What each call may answer, the man
// pages say; anything else, and memory that is not what this racer wrote, is told on stderr and
// by exit status 1.
//
// race_remove ROUNDS KEYS KEY SEED: the keys are KEY to KEY+KEYS-1.

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <unistd.h>

static int status;

static void unexpected(const char *call) {
	fprintf(stderr, "%s: %s\n", call, strerrorname_np(errno));
	status = 1;
}

// Not found, removed in between.
static int gone(void) {
	return errno == EINVAL || errno == EIDRM;
}

int main(int argc, char **argv) {
	if (argc != 5)
		return 2;
	int rounds = atoi(argv[1]), keys = atoi(argv[2]);
	key_t key = (key_t)strtol(argv[3], NULL, 0);
	unsigned seed = (unsigned)atoi(argv[4]);
	for (int round = 0; round < rounds; round++) {
		key_t mine = key + rand_r(&seed) % keys;
		int id = shmget(mine, 4096, IPC_CREAT | 0600);
		if (id < 0) {
			unexpected("shmget");
			continue;
		}
		if (rand_r(&seed) % 3 == 0 && shmctl(id, IPC_RMID, NULL) && !gone())
			unexpected("IPC_RMID");
		char *memory = shmat(id, NULL, 0);
		if (memory == (void *)-1) {
			if (!gone())
				unexpected("shmat");
			continue;
		}
		// Each racer has a word of its own, by its pid, in a segment that any other may share.
		volatile int *word = (volatile int *)memory + getpid() % 1024;
		*word = round;
		struct shmid_ds stat;
		if (shmctl(id, IPC_STAT, &stat))
			unexpected("IPC_STAT of an attached segment");
		else if (stat.shm_nattch == 0)
			unexpected("shm_nattch 0 of an attached segment");
		if (*word != round)
			unexpected("a word that nobody else writes");
		if (shmdt(memory))
			unexpected("shmdt");
	}
	for (int i = 0; i < keys; i++) {
		int id = shmget(key + i, 0, 0);
		if (id >= 0 && shmctl(id, IPC_RMID, NULL) && !gone())
			unexpected("IPC_RMID at the end");
	}
	return status;
}
