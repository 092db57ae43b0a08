// SPDX-License-Identifier: MIT OR Apache-2.0
//
// One of several racers for new keys: in each round all of them ask at the same moment to create
// the segment of one key, and exactly one may get it.
//
// race_get PAGE RACERS ROUNDS KEY: PAGE is a zeroed file of a page that all racers map, to wait for one
// another in, or `key:NUMBER`, a segment, where they have no file in common; round r is about KEY+r. For each round a line: "won ID" or the name of the errno,
// then the id that a get without IPC_CREAT finds once all have had their turn.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

static _Atomic unsigned *arrived;

static void meet(unsigned racers) {
	static unsigned meetings;
	unsigned all = ++meetings * racers;
	atomic_fetch_add(arrived, 1);
	while (atomic_load(arrived) < all)
		sched_yield();
}

// The page in which they meet.
static void *page(const char *name) {
	if (strncmp(name, "key:", 4) == 0)
		return shmat(shmget((key_t)strtol(name + 4, NULL, 0), 4096, 0600), NULL, 0);
	int file = open(name, O_RDWR | O_CLOEXEC);
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
}

int main(int argc, char **argv) {
	if (argc != 5)
		return 2;
	unsigned racers = (unsigned)atoi(argv[2]);
	int rounds = atoi(argv[3]);
	key_t key = (key_t)strtol(argv[4], NULL, 0);
	arrived = page(argv[1]);
	if (arrived == MAP_FAILED) {
		perror(argv[1]);
		return 1;
	}
	alarm(600); // when another racer has died, this one would wait for ever
	for (int round = 0; round < rounds; round++) {
		meet(racers);
		int id = shmget(key + round, 4096, IPC_CREAT | IPC_EXCL | 0600);
		int error = errno;
		meet(racers);
		int found = shmget(key + round, 0, 0);
		if (id < 0)
			printf("%s %d\n", strerrorname_np(error), found);
		else
			printf("won %d %d\n", id, found);
		meet(racers);
		if (id >= 0 && shmctl(id, IPC_RMID, NULL))
			perror("IPC_RMID");
	}
	return 0;
}
