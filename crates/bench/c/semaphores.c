// SPDX-License-Identifier: MIT OR Apache-2.0
/* Two or more processes at one semaphore set, for vshmem-bench; knows nothing of Vshmem.
 *
 *	semaphores ping 0|1 KEY TURNS		two processes by turns; started twice, 0 makes the set
 *	semaphores mutex WORKERS KEY TURNS	so many processes, each of which takes and gives back a
 *						mutex TURNS times; forked here
 *
 * Both print the time that a turn took. */
#define _GNU_SOURCE
#include "turns.h"

#include <sys/sem.h>

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

static int get(key_t key)
{
	return semget(key, 0, 0);
}

static void ping(const struct part *part)
{
	int me = part->number;
	int id = me == 0 ? make(part->key, 2) : find(get, part->key, "sem");
	int64_t start = 0;

	for (uint64_t i = 0; i < part->turns + WARM_UP; i++) {
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
	told(2 * part->turns, start, 2.0 * (double)part->turns);
	if (me == 0 && semctl(id, 0, IPC_RMID) != 0)
		fail("semctl(IPC_RMID): %s", strerror(errno));
}

static void take_and_give(int id, uint64_t turns, int number)
{
	(void)number;
	step(id, 1, -1);
	for (uint64_t turn = 0; turn < turns; turn++) {
		step(id, 0, -1);
		step(id, 0, 1);
	}
}

static void mutex(const struct part *part)
{
	int workers = part->number;
	int id = make(part->key, 2);
	int64_t start;

	for (int i = 0; i < workers; i++)
		begin(take_and_give, id, part->turns, i);
	/* All of them at once, when all are there. */
	while (semctl(id, 1, GETNCNT) != workers)
		usleep(1000);
	start = now_ns();
	step(id, 0, 1);
	step(id, 1, (short)workers);
	wait_for_all(workers);
	told((uint64_t)workers * part->turns, start, (double)workers * (double)part->turns);
	if (semctl(id, 0, IPC_RMID) != 0)
		fail("semctl(IPC_RMID): %s", strerror(errno));
}

int main(int argc, char **argv)
{
	struct part part = part_of(argc, argv);

	if (strcmp(argv[1], "ping") == 0)
		ping(&part);
	else if (strcmp(argv[1], "mutex") == 0)
		mutex(&part);
	else
		fail("no part %s", argv[1]);
	return 0;
}
