// SPDX-License-Identifier: MIT OR Apache-2.0
/* Iterations and their time. They are divided into batches, each of which is timed, so that one
 * run says not only how long an iteration took but how much that varied. */
#ifndef DWARFS_MEASURE_H
#define DWARFS_MEASURE_H

#include "../dwarfs.h"

#define BATCHES_MAX 1000

struct measure {
	uint64_t iters;   /* to do, and then done: fewer where the work ended early */
	uint64_t batches;
	int64_t ns;       /* all of them took */
	double batch[BATCHES_MAX]; /* nanoseconds an iteration in each batch */
};

/* Does the work: `work` does as many iterations as it is told, and returns how many it did. With
 * fewer than that nothing is left to do. */
static inline void measure(struct measure *measure, uint64_t (*work)(void *with, uint64_t iters),
			   void *with)
{
	const uint64_t iters = measure->iters, batches = measure->batches;
	uint64_t batch, done = 0;

	measure->ns = 0;
	for (batch = 0; batch < batches && done == iters * batch / batches; batch++) {
		uint64_t now = iters * (batch + 1) / batches - done;
		int64_t start = now_ns(), took;

		now = work(with, now);
		took = now_ns() - start;
		if (now == 0)
			break;
		done += now;
		measure->ns += took;
		measure->batch[batch] = (double)took / (double)now;
	}
	measure->iters = done;
	measure->batches = batch;
}

/* Nanoseconds that one of `each` equal parts of an iteration took, on the average. */
static inline double mean_ns(const struct measure *measure, int each)
{
	return (double)measure->ns / ((double)measure->iters * each);
}

/* Prints the time of each batch, if there are several. */
static inline void print_batches(const struct measure *measure, int each)
{
	for (uint64_t i = 0; measure->batches > 1 && i < measure->batches; i++)
		printf("batch %.2f ns\n", measure->batch[i] / each);
}

#endif
