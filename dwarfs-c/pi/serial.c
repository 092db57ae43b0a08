// SPDX-License-Identifier: MIT OR Apache-2.0
/* Pi (pi.h) by one process. */
#include "pi.h"

struct work {
	uint64_t intervals;
	double pi;
};

static uint64_t calculate(void *with, uint64_t iters)
{
	struct work *work = with;

	for (uint64_t i = 0; i < iters; i++)
		work->pi = part_of_pi(work->intervals, 0, 1);
	return iters;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &pi, SERIAL);
	struct work work = {.intervals = arguments.size};

	measure(&arguments.measure, calculate, &work);
	print_pi(work.pi);
	print_times(&arguments, 1, 0);
	return 0;
}
