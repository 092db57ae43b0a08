// SPDX-License-Identifier: MIT OR Apache-2.0
/* Laplace's equation (laplace.h) by a team of processes: the meshes lie in System V shared memory,
 * each worker writes its rows and reads those beside them. The sum of what has changed brings all
 * together; nothing else has to. */
#include "laplace.h"

struct work {
	struct team team;
	struct mesh mesh;
	struct progress progress;
};

static uint64_t iterate(void *with, uint64_t iters)
{
	struct work *work = with;
	size_t first, last;
	uint64_t done;

	rows_of(&work->mesh, work->team.rank, work->team.size, &first, &last);
	for (done = 0; done < iters && !arrived(&work->progress); done++) {
		double sum = sweep(&work->mesh, first, last);

		team_sum(&work->team, &sum, 1);
		work->progress.change = swept(&work->mesh, sum);
	}
	return done;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &laplace, SYSV);
	struct work work = {
		.team = team_start(&arguments.team, mesh_bytes(&arguments)),
		.progress = progress_of(&arguments),
	};
	struct summary summary;

	work.mesh = mesh_in(work.team.memory, &arguments);
	if (work.team.rank == 0)
		set_border(&work.mesh, 0, work.mesh.n);
	team_barrier(&work.team);
	measure(&arguments.measure, iterate, &work);
	team_end(&work.team);
	if (work.team.rank != 0)
		return 0;
	summary = summary_of(&work.mesh, 1, work.mesh.n - 1);
	print_mesh(&summary, &work.progress);
	print_times(&arguments, work.team.size, work.team.setup_ns);
	return 0;
}
