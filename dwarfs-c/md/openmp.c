// SPDX-License-Identifier: MIT OR Apache-2.0
/* Molecular dynamics (md.h) by OpenMP threads: one parallel region for the forces and one to move
 * the particles. */
#include "../common/openmp.h"
#include "md.h"

struct work {
	struct particles particles;
	struct course course;
};

static uint64_t take_steps(void *with, uint64_t steps)
{
	struct work *work = with;
	const struct particles *particles = &work->particles;

	for (uint64_t i = 0; i < steps; i++) {
		double potential = 0, kinetic = 0;

#pragma omp parallel reduction(+ : potential, kinetic)
		{
			struct energies energies;
			size_t first, last;

			team_part(particles->n, omp_get_thread_num(), omp_get_num_threads(), &first,
				  &last);
			energies = forces(particles, first, last);
			potential = energies.potential;
			kinetic = energies.kinetic;
		}
		went(&work->course, (struct energies){potential, kinetic});
#pragma omp parallel
		{
			size_t first, last;

			team_part(particles->n, omp_get_thread_num(), omp_get_num_threads(), &first,
				  &last);
			move(particles, first, last);
		}
	}
	return steps;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &md, OPENMP);
	int64_t setup_ns = start_threads(arguments.team.size);
	void *memory = allocate(particles_bytes(&arguments));
	struct work work = {.particles = particles_in(memory, &arguments)};

	scatter(&work.particles);
	measure(&arguments.measure, take_steps, &work);
	print_course(&work.course);
	print_times(&arguments, arguments.team.size, setup_ns);
	return 0;
}
