// SPDX-License-Identifier: MIT OR Apache-2.0
/* Laplace's equation (laplace.h) by MPI processes, each with its rows in its own memory. */
#include "halo.h"

struct work {
	struct ranks ranks;
	struct mesh mesh;
	struct progress progress;
	size_t first, last;
};

static uint64_t iterate(void *with, uint64_t iters)
{
	struct work *work = with;
	uint64_t done;

	for (done = 0; done < iters && !arrived(&work->progress); done++) {
		double part, sum;

		exchange_rows(&work->ranks, &work->mesh, work->first, work->last);
		part = sweep(&work->mesh, work->first, work->last);
		MPI_Allreduce(&part, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
		work->progress.change = swept(&work->mesh, sum);
	}
	return done;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &laplace, MPI);
	struct work work = {
		.ranks = start_mpi(),
		.mesh = mesh_in(allocate(mesh_bytes(&arguments)), &arguments),
		.progress = progress_of(&arguments),
	};
	struct summary summary;

	rows_of_process(&work.ranks, &work.mesh, &work.first, &work.last);
	set_border(&work.mesh, work.first - 1, work.last + 1);
	MPI_Barrier(MPI_COMM_WORLD);
	measure(&arguments.measure, iterate, &work);
	summary = summary_of_all(&work.mesh, work.first, work.last);
	end_mpi(&work.ranks);
	if (work.ranks.rank == 0) {
		print_mesh(&summary, &work.progress);
		print_times(&arguments, work.ranks.size, work.ranks.setup_ns);
	}
	return 0;
}
