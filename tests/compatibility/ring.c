// SPDX-License-Identifier: MIT OR Apache-2.0
/* Messages of all sizes go round between the ranks of MPI, and a window of shared memory is written to. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#define LARGEST (1 << 20)

int main(int argc, char **argv)
{
	int rank, ranks, sum, errors = 0;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	char *out = malloc(LARGEST), *in = malloc(LARGEST);
	int next = (rank + 1) % ranks, before = (rank + ranks - 1) % ranks;

	for (int size = 1; size <= LARGEST; size *= 2) {
		for (int i = 0; i < size; i++)
			out[i] = (char)(rank + i);
		MPI_Sendrecv(out, size, MPI_CHAR, next, 1, in, size, MPI_CHAR, before, 1, MPI_COMM_WORLD,
			     MPI_STATUS_IGNORE);
		for (int i = 0; i < size; i++)
			errors += in[i] != (char)(before + i);
	}

	/* MPI's own shared memory. */
	MPI_Win window;
	int *mine, *theirs, disp;
	MPI_Aint bytes;
	MPI_Win_allocate_shared(4096, sizeof(int), MPI_INFO_NULL, MPI_COMM_WORLD, &mine, &window);
	MPI_Win_shared_query(window, next, &bytes, &disp, &theirs);
	MPI_Win_fence(0, window);
	theirs[0] = 100 + rank;
	MPI_Win_fence(0, window);
	errors += mine[0] != 100 + before;
	MPI_Win_free(&window);

	MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	errors += sum != ranks * (ranks - 1) / 2;
	printf("rank %d of %d: %d errors\n", rank, ranks, errors);
	MPI_Finalize();
	return errors != 0;
}
