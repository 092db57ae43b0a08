// SPDX-License-Identifier: MIT OR Apache-2.0
/* A product (blas.h) by one process. */
#include "blas.h"

struct work {
	struct product product;
	double sum;
};

static uint64_t repeat(void *with, uint64_t iters)
{
	struct work *work = with;

	for (uint64_t i = 0; i < iters; i++)
		multiply(&work->product, 0, work->product.n, &work->sum);
	return iters;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &blas, SERIAL);
	struct work work = {.product = product_of(&arguments, arguments.size)};

	fill(&work.product);
	measure(&arguments.measure, repeat, &work);
	print_product(&work.product, work.sum);
	print_times(&arguments, 1, 0);
	return 0;
}
