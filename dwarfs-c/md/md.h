// SPDX-License-Identifier: MIT OR Apache-2.0
/* Molecular dynamics: `--size` particles in a box of 2 or 3 dimensions (`--dims`), each of which
 * acts on each other, by the Verlet scheme with velocities. An iteration is a step in time: the
 * forces on all particles and the energies, then new positions and velocities. Particles are divided
 * among the workers, all of which read all positions.
 *
 * Two particles at a distance of r have the potential sin(r) ^ 2 up to r = pi / 2, and 1 beyond it,
 * where they do not act on each other. Mass is 1. Potential and kinetic energy change into each
 * other; how much their sum changes shows how good the steps are. */
#ifndef DWARFS_MD_H
#define DWARFS_MD_H

#include "../common/arguments.h"

#include <math.h>

/* Length of the box's sides, and of a step in time. */
#define BOX 10.0
#define STEP 1e-4

static const struct dwarf md = {
	.usage = " [--dims 2|3]",
	.takes = "d",
	.size_max = 1 << 20,
	.standard = {.size = 50, .dims = 2, .measure = {.iters = 100}},
};

/* Of each, `dims` numbers a particle. */
struct particles {
	size_t n;
	unsigned dims;
	double *position, *velocity, *acceleration, *force;
};

/* Of one or of all workers. */
struct energies {
	double potential, kinetic;
};

static inline size_t particles_bytes(const struct arguments *arguments)
{
	return 4 * arguments->size * arguments->dims * sizeof(double);
}

static inline struct particles particles_in(void *memory, const struct arguments *arguments)
{
	const size_t numbers = arguments->size * arguments->dims;
	double *at = memory;

	return (struct particles){
		.n = arguments->size,
		.dims = arguments->dims,
		.position = at,
		.velocity = at + numbers,
		.acceleration = at + 2 * numbers,
		.force = at + 3 * numbers,
	};
}

/* The next of a series of random numbers from 0 to 1, the same in each run (Knuth's MMIX). */
static inline double random_number(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (double)(*state >> 11) / (double)(UINT64_C(1) << 53);
}

/* Puts all particles anywhere, with any small velocity. */
static inline void scatter(const struct particles *particles)
{
	uint64_t state = 1;

	for (size_t i = 0; i < particles->n * particles->dims; i++) {
		particles->position[i] = BOX * random_number(&state);
		particles->velocity[i] = random_number(&state) - 0.5;
		particles->acceleration[i] = 0;
	}
}

/* The forces on the particles from `first` up to `last`; returns their energies, of which half of
 * each potential is the other particle's. */
__attribute__((noipa)) static struct energies forces(const struct particles *particles, size_t first,
						     size_t last)
{
	const unsigned dims = particles->dims;
	const double *position = particles->position;
	struct energies energies = {0};

	for (size_t i = first; i < last; i++) {
		double force[3] = {0};

		for (size_t j = 0; j < particles->n; j++) {
			double away[3], square = 0, distance, near;

			if (j == i)
				continue;
			for (unsigned k = 0; k < dims; k++) {
				away[k] = position[i * dims + k] - position[j * dims + k];
				square += away[k] * away[k];
			}
			distance = sqrt(square);
			near = distance < M_PI_2 ? distance : M_PI_2;
			energies.potential += 0.5 * sin(near) * sin(near);
			for (unsigned k = 0; k < dims; k++)
				force[k] -= away[k] * sin(2 * near) / distance;
		}
		for (unsigned k = 0; k < dims; k++) {
			double velocity = particles->velocity[i * dims + k];

			particles->force[i * dims + k] = force[k];
			energies.kinetic += 0.5 * velocity * velocity;
		}
	}
	return energies;
}

/* Moves the particles from `first` up to `last` as their forces say. */
__attribute__((noipa)) static void move(const struct particles *particles, size_t first, size_t last)
{
	const unsigned dims = particles->dims;

	for (size_t i = first * dims; i < last * dims; i++) {
		double before = particles->acceleration[i], now = particles->force[i];

		particles->position[i] += STEP * (particles->velocity[i] + STEP / 2 * before);
		particles->velocity[i] += STEP / 2 * (before + now);
		particles->acceleration[i] = now;
	}
}

/* The energies at the first and at the last step. */
struct course {
	bool begun;
	struct energies first, last;
};

static inline void went(struct course *course, struct energies energies)
{
	if (!course->begun)
		course->first = energies;
	course->begun = true;
	course->last = energies;
}

static inline void print_course(const struct course *course)
{
	const double first = course->first.potential + course->first.kinetic;
	const double last = course->last.potential + course->last.kinetic;

	print_result("potential energy", course->last.potential);
	print_result("kinetic energy", course->last.kinetic);
	print_result("drift", fabs(last - first) / first);
}

#endif
