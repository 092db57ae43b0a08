// SPDX-License-Identifier: MIT OR Apache-2.0
/* Pi (pi.h) by OpenMP threads. */
#include "../common/openmp.h"
#include "pi.h"

struct work {
	uint64_t intervals;
	double pi;
};

static uint64_t calculate(void *with, uint64_t iters)
{
	struct work *work = with;

	for (uint64_t i = 0; i < iters; i++) {
		double sum = 0;

		/* The number of intervals is shared, as all variables of before are. */
#pragma omp parallel reduction(+ : sum)
		sum = part_of_pi(work->intervals, omp_get_thread_num(), omp_get_num_threads());
		work->pi = sum;
	}
	return iters;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &pi, OPENMP);
	struct work work = {.intervals = arguments.size};
	int64_t setup_ns = start_threads(arguments.team.size);

	measure(&arguments.measure, calculate, &work);
	print_pi(work.pi);
	print_times(&arguments, arguments.team.size, setup_ns);
	return 0;
}
