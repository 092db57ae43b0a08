// SPDX-License-Identifier: MIT OR Apache-2.0
/* Molecular dynamics (md.h) by a team of processes: all particles lie in System V shared memory.
 * All read all positions and then write those of their own, and no other worker may do the one
 * while one does the other: the sum of the energies and a barrier keep them apart. */
#include "md.h"

struct work {
	struct team team;
	struct particles particles;
	struct course course;
};

static uint64_t take_steps(void *with, uint64_t steps)
{
	struct work *work = with;
	struct team *team = &work->team;
	size_t first, last;

	team_part(work->particles.n, team->rank, team->size, &first, &last);
	for (uint64_t i = 0; i < steps; i++) {
		struct energies energies = forces(&work->particles, first, last);
		double values[] = {energies.potential, energies.kinetic};

		team_sum(team, values, 2);
		went(&work->course, (struct energies){values[0], values[1]});
		move(&work->particles, first, last);
		team_barrier(team);
	}
	return steps;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &md, SYSV);
	struct work work = {.team = team_start(&arguments.team, particles_bytes(&arguments))};

	work.particles = particles_in(work.team.memory, &arguments);
	if (work.team.rank == 0)
		scatter(&work.particles);
	team_barrier(&work.team);
	measure(&arguments.measure, take_steps, &work);
	team_end(&work.team);
	if (work.team.rank != 0)
		return 0;
	print_course(&work.course);
	print_times(&arguments, work.team.size, work.team.setup_ns);
	return 0;
}
