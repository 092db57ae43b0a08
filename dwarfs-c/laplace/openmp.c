// SPDX-License-Identifier: MIT OR Apache-2.0
/* Laplace's equation (laplace.h) by OpenMP threads. */
#include "../common/openmp.h"
#include "laplace.h"

struct work {
	struct mesh mesh;
	struct progress progress;
};

static uint64_t iterate(void *with, uint64_t iters)
{
	struct work *work = with;
	uint64_t done;

	for (done = 0; done < iters && !arrived(&work->progress); done++) {
		double sum = 0;

#pragma omp parallel reduction(+ : sum)
		{
			size_t first, last;

			rows_of(&work->mesh, omp_get_thread_num(), omp_get_num_threads(), &first,
				&last);
			sum = sweep(&work->mesh, first, last);
		}
		work->progress.change = swept(&work->mesh, sum);
	}
	return done;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &laplace, OPENMP);
	int64_t setup_ns = start_threads(arguments.team.size);
	struct work work = {
		.mesh = mesh_in(allocate(mesh_bytes(&arguments)), &arguments),
		.progress = progress_of(&arguments),
	};
	struct summary summary;

	set_border(&work.mesh, 0, work.mesh.n);
	measure(&arguments.measure, iterate, &work);
	summary = summary_of(&work.mesh, 1, work.mesh.n - 1);
	print_mesh(&summary, &work.progress);
	print_times(&arguments, arguments.team.size, setup_ns);
	return 0;
}
