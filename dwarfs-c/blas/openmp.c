// SPDX-License-Identifier: MIT OR Apache-2.0
/* A product (blas.h) by OpenMP threads. */
#include "blas.h"

#include "../common/openmp.h"

struct work {
	struct product product;
	double sum;
};

static uint64_t repeat(void *with, uint64_t iters)
{
	struct work *work = with;
	const struct product *product = &work->product;

	for (uint64_t i = 0; i < iters; i++) {
		double sum = 0;

#pragma omp parallel reduction(+ : sum)
		{
			size_t first, last;

			team_part(product->n, omp_get_thread_num(), omp_get_num_threads(), &first,
				  &last);
			multiply(product, first, last, &sum);
		}
		work->sum = sum;
	}
	return iters;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &blas, OPENMP);
	int64_t setup_ns = start_threads(arguments.team.size);
	struct work work = {.product = product_of(&arguments, arguments.size)};

	fill(&work.product);
	measure(&arguments.measure, repeat, &work);
	print_product(&work.product, work.sum);
	print_times(&arguments, arguments.team.size, setup_ns);
	return 0;
}
