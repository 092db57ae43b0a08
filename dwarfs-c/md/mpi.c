// SPDX-License-Identifier: MIT OR Apache-2.0
/* Molecular dynamics (md.h) by MPI processes: each has all positions, moves its particles, and
 * gathers where the others' have got to. */
#include "../common/mpi.h"
#include "md.h"

struct work {
	struct ranks ranks;
	struct particles particles;
	struct course course;
	size_t first, last;
	/* Numbers of the positions of each rank's particles, and where they lie. */
	int *count, *at;
};

static uint64_t take_steps(void *with, uint64_t steps)
{
	struct work *work = with;

	for (uint64_t i = 0; i < steps; i++) {
		struct energies energies = forces(&work->particles, work->first, work->last);
		double part[] = {energies.potential, energies.kinetic}, sum[2] = {0};

		MPI_Reduce(part, sum, 2, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
		went(&work->course, (struct energies){sum[0], sum[1]});
		move(&work->particles, work->first, work->last);
		MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, work->particles.position,
			       work->count, work->at, MPI_DOUBLE, MPI_COMM_WORLD);
	}
	return steps;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &md, MPI);
	struct work work = {.ranks = start_mpi()};
	const int size = work.ranks.size;

	work.particles = particles_in(allocate(particles_bytes(&arguments)), &arguments);
	work.count = allocate(2 * (size_t)size * sizeof *work.count);
	work.at = work.count + size;
	for (int rank = 0; rank < size; rank++) {
		team_part(work.particles.n, rank, size, &work.first, &work.last);
		work.at[rank] = (int)(work.first * arguments.dims);
		work.count[rank] = (int)((work.last - work.first) * arguments.dims);
	}
	team_part(work.particles.n, work.ranks.rank, size, &work.first, &work.last);
	/* The series of random numbers is the same everywhere. */
	scatter(&work.particles);
	MPI_Barrier(MPI_COMM_WORLD);
	measure(&arguments.measure, take_steps, &work);
	end_mpi(&work.ranks);
	if (work.ranks.rank == 0) {
		print_course(&work.course);
		print_times(&arguments, size, work.ranks.setup_ns);
	}
	return 0;
}
