// SPDX-License-Identifier: MIT OR Apache-2.0
/* Pi as the integral of 4 / (1 + x * x) from 0 to 1, by Simpson's rule on `--size` intervals: many
 * independent evaluations, and one sum. Each iteration calculates it once: rank 0 tells the others
 * the number of intervals, each adds up its part of them, and the sum of these is pi. */
#ifndef DWARFS_PI_H
#define DWARFS_PI_H

#include "../common/arguments.h"

#include <math.h>

static const struct dwarf pi = {
	.usage = "",
	.takes = "",
	.size_max = UINT64_C(1) << 40,
	.standard = {.size = 1000, .measure = {.iters = 1000}},
};

static inline double height(double x)
{
	return 4.0 / (1.0 + x * x);
}

/* The part of worker `rank` of `workers`. Not inlined, or the compiler sees that all iterations
 * of a serial program give the same. */
__attribute__((noipa)) static double part_of_pi(uint64_t intervals, int rank, int workers)
{
	const double width = 1.0 / (double)intervals;
	double sum = 0;
	size_t first, last;

	team_part(intervals, rank, workers, &first, &last);
	for (size_t i = first; i < last; i++) {
		double left = (double)i * width;

		sum += height(left) + 4.0 * height(left + width / 2) + height(left + width);
	}
	return sum * width / 6;
}

static inline void print_pi(double value)
{
	print_result("pi", value);
	print_result("error", fabs(value - M_PI));
}

#endif
