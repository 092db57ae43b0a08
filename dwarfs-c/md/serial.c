// SPDX-License-Identifier: MIT OR Apache-2.0
/* Molecular dynamics (md.h) by one process. */
#include "md.h"

struct work {
	struct particles particles;
	struct course course;
};

static uint64_t take_steps(void *with, uint64_t steps)
{
	struct work *work = with;

	for (uint64_t i = 0; i < steps; i++) {
		went(&work->course, forces(&work->particles, 0, work->particles.n));
		move(&work->particles, 0, work->particles.n);
	}
	return steps;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &md, SERIAL);
	void *memory = allocate(particles_bytes(&arguments));
	struct work work = {.particles = particles_in(memory, &arguments)};

	scatter(&work.particles);
	measure(&arguments.measure, take_steps, &work);
	print_course(&work.course);
	print_times(&arguments, 1, 0);
	return 0;
}
