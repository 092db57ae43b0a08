// SPDX-License-Identifier: MIT OR Apache-2.0
/* A product (blas.h) by MPI processes. Both factors begin at rank 0, and the product ends there: in
 * each iteration the rows of A are scattered, B is broadcast, and the rows of C are gathered; at
 * level 1 the elements of both vectors are scattered, and their sum is reduced. */
#include "blas.h"

#include "../common/mpi.h"

struct work {
	struct ranks ranks;
	struct product whole; /* rank 0's */
	struct product own;   /* this one's rows of A and C, and all of B */
	size_t rows;
	double sum;
	/* Elements that go to and come from each rank, and where they lie in the whole. */
	int *a_count, *a_at, *c_count, *c_at;
};

static uint64_t repeat(void *with, uint64_t iters)
{
	struct work *work = with;
	const struct product *whole = &work->whole, *own = &work->own;
	MPI_Datatype type = own->single ? MPI_FLOAT : MPI_DOUBLE;
	const int me = work->ranks.rank, b_count = (int)b_elements(own->n);

	for (uint64_t i = 0; i < iters; i++) {
		double part;

		MPI_Scatterv(whole->a, work->a_count, work->a_at, type, own->a, work->a_count[me],
			     type, 0, MPI_COMM_WORLD);
		if (LEVEL == 1)
			MPI_Scatterv(whole->b, work->a_count, work->a_at, type, own->b,
				     work->a_count[me], type, 0, MPI_COMM_WORLD);
		else
			MPI_Bcast(own->b, b_count, type, 0, MPI_COMM_WORLD);
		multiply(own, 0, work->rows, &part);
		if (LEVEL == 1)
			MPI_Reduce(&part, &work->sum, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
		else
			MPI_Gatherv(own->c, work->c_count[me], type, whole->c, work->c_count,
				    work->c_at, type, 0, MPI_COMM_WORLD);
	}
	return iters;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &blas, MPI);
	struct work work = {.ranks = start_mpi()};
	const size_t n = arguments.size, size = (size_t)work.ranks.size;
	int *counts = allocate(4 * size * sizeof *counts);

	work.a_count = counts;
	work.a_at = counts + size;
	work.c_count = counts + 2 * size;
	work.c_at = counts + 3 * size;
	for (int rank = 0; rank < work.ranks.size; rank++) {
		size_t first, last;

		team_part(n, rank, work.ranks.size, &first, &last);
		work.a_count[rank] = (int)((last - first) * a_row(n));
		work.a_at[rank] = (int)(first * a_row(n));
		work.c_count[rank] = (int)((last - first) * c_row(n));
		work.c_at[rank] = (int)(first * c_row(n));
		if (rank == work.ranks.rank)
			work.rows = last - first;
	}
	work.own = product_of(&arguments, work.rows);
	if (work.ranks.rank == 0) {
		work.whole = product_of(&arguments, n);
		fill(&work.whole);
		/* The root of a broadcast sends what it has itself. */
		memcpy(work.own.b, work.whole.b, b_elements(n) * element(work.own.single));
	}
	MPI_Barrier(MPI_COMM_WORLD);
	measure(&arguments.measure, repeat, &work);
	end_mpi(&work.ranks);
	if (work.ranks.rank == 0) {
		print_product(&work.whole, work.sum);
		print_times(&arguments, work.ranks.size, work.ranks.setup_ns);
	}
	return 0;
}
