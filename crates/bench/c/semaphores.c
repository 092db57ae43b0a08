// SPDX-License-Identifier: MIT OR Apache-2.0
/* Two or more processes at one semaphore set, for vshmem-bench; knows nothing of Vshmem.
 *
 *	semaphores ping 0|1 KEY TURNS		two processes by turns; started twice, 0 makes the set
 *	semaphores mutex WORKERS KEY TURNS	so many processes, each of which takes and gives back a
 *						mutex TURNS times; forked here
 *
 * Both print the time that a turn took. */
#define _GNU_SOURCE
#include "../../../dwarfs-c/dwarfs.h"

#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <unistd.h>

#define WARM_UP 100

static void step(int id, unsigned short num, short by)
{
	struct sembuf op = {.sem_num = num, .sem_op = by};

	if (semop(id, &op, 1) != 0)
		fail("semop(%hu, %+hd): %s", num, by, strerror(errno));
}

static int make(key_t key, int count)
{
	int id = semget(key, count, IPC_CREAT | IPC_EXCL | 0600);

	if (id < 0)
		fail("semget(0x%x): %s", (unsigned)key, strerror(errno));
	return id;
}

static int find(key_t key)
{
	const int64_t give_up = now_ns() + PATIENCE_S * INT64_C(1000000000);
	const struct timespec moment = {.tv_nsec = 1000000};
	int id;

	while ((id = semget(key, 0, 0)) < 0) {
		if (errno != ENOENT || now_ns() > give_up)
			fail("semget(0x%x): %s", (unsigned)key, strerror(errno));
		nanosleep(&moment, NULL);
	}
	return id;
}

static void told(uint64_t turns, int64_t start, double of)
{
	printf("%llu turns: %.1f ns a turn\n", (unsigned long long)turns,
	       (double)(now_ns() - start) / of);
}

static void ping(int me, key_t key, uint64_t turns)
{
	int id = me == 0 ? make(key, 2) : find(key);
	int64_t start = 0;

	for (uint64_t i = 0; i < turns + WARM_UP; i++) {
		if (i == WARM_UP)
			start = now_ns();
		if (me == 0) {
			step(id, 1, 1);
			step(id, 0, -1);
		} else {
			step(id, 1, -1);
			step(id, 0, 1);
		}
	}
	told(2 * turns, start, 2.0 * (double)turns);
	if (me == 0 && semctl(id, 0, IPC_RMID) != 0)
		fail("semctl(IPC_RMID): %s", strerror(errno));
}

static void mutex(int workers, key_t key, uint64_t turns)
{
	int id = make(key, 2);
	int64_t start;

	for (int i = 0; i < workers; i++) {
		pid_t child = fork();

		if (child < 0)
			fail("fork: %s", strerror(errno));
		if (child > 0)
			continue;
		step(id, 1, -1);
		for (uint64_t turn = 0; turn < turns; turn++) {
			step(id, 0, -1);
			step(id, 0, 1);
		}
		_exit(0);
	}
	/* All of them at once, when all are there. */
	while (semctl(id, 1, GETNCNT) != workers)
		usleep(1000);
	start = now_ns();
	step(id, 0, 1);
	step(id, 1, (short)workers);
	for (int i = 0; i < workers; i++) {
		int status;

		if (wait(&status) < 0 || status != 0)
			fail("a worker ended with status 0x%x", (unsigned)status);
	}
	told((uint64_t)workers * turns, start, (double)workers * (double)turns);
	if (semctl(id, 0, IPC_RMID) != 0)
		fail("semctl(IPC_RMID): %s", strerror(errno));
}

int main(int argc, char **argv)
{
	if (argc != 5)
		fail("wrong number of arguments");
	int first = atoi(argv[2]);
	key_t key = (key_t)strtoul(argv[3], NULL, 0);
	uint64_t turns = strtoul(argv[4], NULL, 0);

	if (strcmp(argv[1], "ping") == 0)
		ping(first, key, turns);
	else if (strcmp(argv[1], "mutex") == 0)
		mutex(first, key, turns);
	else
		fail("no part %s", argv[1]);
	return 0;
}
