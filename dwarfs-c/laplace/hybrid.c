// SPDX-License-Identifier: MIT OR Apache-2.0
/* Laplace's equation (laplace.h) by mixed parallelism: MPI between hosts, System V shared memory
 * within each. A host has some rows, which its team divides as laplace/sysv.c does. Rank 0 of the
 * team is the host's MPI process; the others know nothing of MPI. */
#include "halo.h"

struct work {
	struct team team;
	struct ranks ranks;  /* rank 0's: the hosts */
	struct mesh mesh;
	struct progress progress;
	uint64_t rows[2];    /* of the host: the first, and the one behind the last */
	size_t first, last;  /* of this worker */
};

static uint64_t iterate(void *with, uint64_t iters)
{
	struct work *work = with;
	struct team *team = &work->team;
	uint64_t done;

	for (done = 0; done < iters; done++) {
		double sum;

		if (team->rank == 0 && !arrived(&work->progress))
			exchange_rows(&work->ranks, &work->mesh, work->rows[0], work->rows[1]);
		/* Tells the others also that the rows have come. */
		team_broadcast(team, &work->progress.change, sizeof work->progress.change);
		if (arrived(&work->progress))
			break;
		sum = sweep(&work->mesh, work->first, work->last);
		team_sum(team, &sum, 1);
		if (team->rank == 0)
			MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
		work->progress.change = swept(&work->mesh, sum);
	}
	return done;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &laplace, HYBRID);
	struct work work = {.progress = progress_of(&arguments)};
	struct summary summary;
	size_t first, last;

	if (arguments.team.rank == 0)
		work.ranks = start_mpi();
	work.team = team_start(&arguments.team, mesh_bytes(&arguments));
	work.mesh = mesh_in(work.team.memory, &arguments);
	if (work.team.rank == 0) {
		rows_of_process(&work.ranks, &work.mesh, &first, &last);
		set_border(&work.mesh, first - 1, last + 1);
		work.rows[0] = first;
		work.rows[1] = last;
	}
	team_broadcast(&work.team, work.rows, sizeof work.rows);
	team_part(work.rows[1] - work.rows[0], work.team.rank, work.team.size, &work.first, &work.last);
	work.first += work.rows[0];
	work.last += work.rows[0];
	measure(&arguments.measure, iterate, &work);
	team_end(&work.team);
	if (work.team.rank != 0)
		return 0;
	summary = summary_of_all(&work.mesh, work.rows[0], work.rows[1]);
	end_mpi(&work.ranks);
	if (work.ranks.rank == 0) {
		print_mesh(&summary, &work.progress);
		print_times(&arguments, work.ranks.size * work.team.size,
			    work.ranks.setup_ns + work.team.setup_ns);
	}
	return 0;
}
