/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the programs of turns have in common: the arguments, children, the time
 * that a turn took. Each is started as PROGRAM PART NUMBER KEY TURNS [SIZE]. */
#ifndef VSHMEM_BENCH_TURNS_H
#define VSHMEM_BENCH_TURNS_H

#include "../../../dwarfs-c/dwarfs.h"

#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/wait.h>
#include <unistd.h>

#define WARM_UP 100

/* What PROGRAM was told to do. */
struct part {
	int number;
	key_t key;
	uint64_t turns;
	size_t size;
};

static struct part part_of(int argc, char **argv)
{
	if (argc != 5 && argc != 6)
		fail("wrong number of arguments");
	return (struct part){
		.number = atoi(argv[2]),
		.key = (key_t)strtoul(argv[3], NULL, 0),
		.turns = strtoul(argv[4], NULL, 0),
		.size = argc == 6 ? strtoul(argv[5], NULL, 0) : 0,
	};
}

static void told(uint64_t turns, int64_t start, double of)
{
	printf("%llu turns: %.1f ns a turn\n", (unsigned long long)turns,
	       (double)(now_ns() - start) / of);
}

/* A child that does this and ends. */
static void begin(void (*work)(int id, uint64_t turns, int number), int id, uint64_t turns, int number)
{
	pid_t child = fork();

	if (child < 0)
		fail("fork: %s", strerror(errno));
	if (child > 0)
		return;
	work(id, turns, number);
	_exit(0);
}

static void wait_for_all(int children)
{
	for (int i = 0; i < children; i++) {
		int status;

		if (wait(&status) < 0 || status != 0)
			fail("a worker ended with status 0x%x", (unsigned)status);
	}
}

#endif
