// SPDX-License-Identifier: MIT OR Apache-2.0
/* Pi (pi.h) by MPI processes. */
#include "../common/mpi.h"
#include "pi.h"

struct work {
	struct ranks ranks;
	uint64_t intervals; /* rank 0's, and then everybody's */
	double pi;
};

static uint64_t calculate(void *with, uint64_t iters)
{
	struct work *work = with;

	for (uint64_t i = 0; i < iters; i++) {
		double part;

		MPI_Bcast(&work->intervals, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
		part = part_of_pi(work->intervals, work->ranks.rank, work->ranks.size);
		MPI_Reduce(&part, &work->pi, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
	}
	return iters;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &pi, MPI);
	struct work work = {.ranks = start_mpi()};

	if (work.ranks.rank == 0)
		work.intervals = arguments.size;
	measure(&arguments.measure, calculate, &work);
	end_mpi(&work.ranks);
	if (work.ranks.rank != 0)
		return 0;
	print_pi(work.pi);
	print_times(&arguments, work.ranks.size, work.ranks.setup_ns);
	return 0;
}
