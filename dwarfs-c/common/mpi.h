// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the MPI variants have in common. Errors of MPI end all of its processes, as its standard
 * has it for who does not ask for anything else. */
#ifndef DWARFS_MPI_H
#define DWARFS_MPI_H

#include "arguments.h"

#include <mpi.h>

struct ranks {
	int rank;
	int size;
	int64_t setup_ns;
};

/* Starts MPI. The arguments are read before, so that wrong ones are told without it. */
static inline struct ranks start_mpi(void)
{
	struct ranks ranks;
	int64_t start = now_ns();

	MPI_Init(NULL, NULL);
	ranks.setup_ns = now_ns() - start;
	MPI_Comm_rank(MPI_COMM_WORLD, &ranks.rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks.size);
	return ranks;
}

static inline void end_mpi(struct ranks *ranks)
{
	int64_t start = now_ns();

	MPI_Finalize();
	ranks->setup_ns += now_ns() - start;
}

#endif
