// SPDX-License-Identifier: MIT OR Apache-2.0
/* Semsync: Sync (common/region.h) with P and V through semop: who waits may sleep. */
#include "common/region.h"

#include <sys/sem.h>

/* The set of both semaphores. */
static int set;

__attribute__((noreturn)) static void usage(void)
{
	fprintf(stderr, "usage: semsync " PAIR_USAGE
			"Start it twice, with --id 0 and --id 1; 0 makes the segment and the semaphores\n"
			"and removes them.\n");
	exit(2);
}

static void step(int sem, short by)
{
	const struct timespec patience = {.tv_sec = PATIENCE_S};
	struct sembuf op = {.sem_num = (unsigned short)sem, .sem_op = by};

	while (semtimedop(set, &op, 1, &patience) < 0)
		if (errno != EINTR)
			fail("semop: %s", strerror(errno));
}

static void P(struct shared *shared, int sem)
{
	(void)shared;
	step(sem, -1);
}

static void V(struct shared *shared, int sem)
{
	(void)shared;
	step(sem, 1);
}

static int get_set(key_t key)
{
	return semget(key, 0, 0);
}

int main(int argc, char **argv)
{
	struct pair pair = pair_of(argc, argv, UINT64_C(1) << 32, usage);

	if (pair.my_id == 0) {
		set = semget(pair.key, 2, IPC_CREAT | IPC_EXCL | 0600);
		if (set < 0)
			fail("semget(0x%x, IPC_CREAT | IPC_EXCL): %s%s", (unsigned)pair.key,
			     strerror(errno), errno == EEXIST ? HINT_EXISTS("S") : "");
		/* A set's semaphores begin at 0. */
		step(1, 1);
	} else {
		set = find(get_set, pair.key, "sem");
	}
	work_in_region(&pair);
	/* Side 0 has the last turn, and side 1 no further use for the set. */
	if (pair.my_id == 0 && semctl(set, 0, IPC_RMID) < 0)
		fail("semctl(IPC_RMID): %s", strerror(errno));
	return 0;
}
