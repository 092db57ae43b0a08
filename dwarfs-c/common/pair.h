// SPDX-License-Identifier: MIT OR Apache-2.0
/* Two processes that take turns, each started by hand with its number: their options, and what
 * they print. */
#ifndef DWARFS_PAIR_H
#define DWARFS_PAIR_H

#include "measure.h"

#include <getopt.h>
#include <unistd.h>

/* Turns of each side before the clock starts, in which what the peer wrote is checked. */
#define WARM_UP 100

#define PAIR_USAGE "--id 0|1 --key KEY [--size BYTES] [--iters N] [--batches N] [--pin]\n"

struct pair {
	int my_id;
	key_t key;
	uint64_t size;
	struct measure measure; /* an iteration is a turn of each side */
};

/* Reads the arguments; exits with the usage when they are wrong. */
static inline struct pair pair_of(int argc, char **argv, uint64_t size_max, void (*usage)(void))
{
	static const struct option options[] = {
		{"id", required_argument, NULL, 'i'},
		{"key", required_argument, NULL, 'k'},
		{"size", required_argument, NULL, 's'},
		{"iters", required_argument, NULL, 'n'},
		{"batches", required_argument, NULL, 'b'},
		{"pin", no_argument, NULL, 'p'},
		{0},
	};
	struct pair pair = {
		.my_id = -1,
		.key = IPC_PRIVATE,
		.size = 8,
		.measure = {.iters = 100000, .batches = 1},
	};
	bool on_own_core = false;
	int option;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'i':
			pair.my_id = (int)number(optarg, 0, 1, usage);
			break;
		case 'k':
			pair.key = (key_t)number(optarg, 1, UINT32_MAX, usage);
			break;
		case 's':
			pair.size = number(optarg, 1, size_max, usage);
			break;
		case 'n':
			pair.measure.iters = number(optarg, 1, UINT64_C(1) << 40, usage);
			break;
		case 'b':
			pair.measure.batches = number(optarg, 1, BATCHES_MAX, usage);
			break;
		case 'p':
			on_own_core = true;
			break;
		default:
			usage();
		}
	}
	if (pair.my_id < 0 || pair.key == IPC_PRIVATE || optind != argc)
		usage();
	if (on_own_core)
		pin((unsigned)pair.my_id);
	return pair;
}

/* Prints what a turn took, which is one way: half an iteration. */
static inline void print_turns(const struct measure *measure, uint64_t size)
{
	print_batches(measure, 2);
	printf("%llu bytes, %llu turns: %.1f ns a turn\n", (unsigned long long)size,
	       (unsigned long long)(2 * measure->iters), mean_ns(measure, 2));
}

#endif
