// SPDX-License-Identifier: MIT OR Apache-2.0
/* A product (blas.h) by a team of processes: both factors and the product lie in System V shared
 * memory, and each worker writes its rows. */
#include "blas.h"

struct work {
	struct team team;
	struct product product;
	double sum;
};

static uint64_t repeat(void *with, uint64_t iters)
{
	struct work *work = with;
	size_t first, last;

	team_part(work->product.n, work->team.rank, work->team.size, &first, &last);
	for (uint64_t i = 0; i < iters; i++) {
		multiply(&work->product, first, last, &work->sum);
		if (LEVEL == 1)
			team_sum(&work->team, &work->sum, 1);
		else
			team_barrier(&work->team);
	}
	return iters;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &blas, SYSV);
	const size_t bytes = product_bytes(&arguments, arguments.size);
	struct work work = {.team = team_start(&arguments.team, bytes)};

	work.product = product_in(work.team.memory, &arguments, arguments.size);
	if (work.team.rank == 0)
		fill(&work.product);
	team_barrier(&work.team);
	measure(&arguments.measure, repeat, &work);
	team_end(&work.team);
	if (work.team.rank != 0)
		return 0;
	print_product(&work.product, work.sum);
	print_times(&arguments, work.team.size, work.team.setup_ns);
	return 0;
}
