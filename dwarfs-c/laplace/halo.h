// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the variants of Laplace with MPI have in common: each MPI process has some rows of the mesh,
 * and the last of its neighbours' beside them. */
#ifndef DWARFS_LAPLACE_HALO_H
#define DWARFS_LAPLACE_HALO_H

#include "../common/mpi.h"
#include "laplace.h"

/* Gets the row above and the row below from the neighbours, and gives them one's own. */
static inline void exchange_rows(const struct ranks *ranks, const struct mesh *mesh, size_t first,
				 size_t last)
{
	const int n = (int)mesh->n;
	const int above = ranks->rank > 0 ? ranks->rank - 1 : MPI_PROC_NULL;
	const int below = ranks->rank < ranks->size - 1 ? ranks->rank + 1 : MPI_PROC_NULL;
	double *now = mesh->now;

	MPI_Sendrecv(now + first * mesh->n, n, MPI_DOUBLE, above, 0, now + last * mesh->n, n,
		     MPI_DOUBLE, below, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
	MPI_Sendrecv(now + (last - 1) * mesh->n, n, MPI_DOUBLE, below, 0,
		     now + (first - 1) * mesh->n, n, MPI_DOUBLE, above, 0, MPI_COMM_WORLD,
		     MPI_STATUS_IGNORE);
}

/* The rows of a process, of which it has to have some. */
static inline void rows_of_process(const struct ranks *ranks, const struct mesh *mesh, size_t *first,
				   size_t *last)
{
	rows_of(mesh, ranks->rank, ranks->size, first, last);
	if (*first == *last)
		fail("--size %zu is too small for %d processes", mesh->n, ranks->size);
}

/* The summary of the whole mesh, at rank 0. */
static inline struct summary summary_of_all(const struct mesh *mesh, size_t first, size_t last)
{
	struct summary part = summary_of(mesh, first, last), all = {0};

	MPI_Reduce(part.sums, all.sums, 2, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
	MPI_Reduce(&part.error, &all.error, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
	return all;
}

#endif
