// SPDX-License-Identifier: MIT OR Apache-2.0
/* Laplace's equation on a square by Jacobi's method: the mesh has `--size` points a side, those on
 * the border are given, and in each iteration each other point becomes the mean of its four
 * neighbours. Rows are divided among the workers; after each iteration all of them know by how much
 * the mesh has changed, and stop when that is less than `--until`.
 *
 * The border is that of u = x * x - y * y + x * y, which is harmonic, and of which the mean of four
 * neighbours is exact: the mesh approaches u itself. */
#ifndef DWARFS_LAPLACE_H
#define DWARFS_LAPLACE_H

#include "../common/arguments.h"

#include <math.h>

static const struct dwarf laplace = {
	.usage = " [--until CHANGE]",
	.takes = "u",
	.size_max = 1 << 15,
	.standard = {.size = 100, .measure = {.iters = 1000}},
};

/* Two meshes, of which an iteration reads one and writes the other. Both are zero but for what is
 * set; in a worker's own memory, rows that it does not use are never touched. */
struct mesh {
	size_t n;
	double *now, *next;
};

static inline size_t mesh_bytes(const struct arguments *arguments)
{
	return 2 * arguments->size * arguments->size * sizeof(double);
}

static inline struct mesh mesh_in(void *memory, const struct arguments *arguments)
{
	const size_t n = arguments->size;

	if (n < 3)
		fail("--size: a mesh has at least 3 points a side");
	return (struct mesh){.n = n, .now = memory, .next = (double *)memory + n * n};
}

/* The rows of a worker: those on the border are nobody's. */
static inline void rows_of(const struct mesh *mesh, int rank, int size, size_t *first, size_t *last)
{
	team_part(mesh->n - 2, rank, size, first, last);
	++*first;
	++*last;
}

static inline double exact(size_t n, size_t i, size_t j)
{
	double x = (double)j / (double)(n - 1), y = (double)i / (double)(n - 1);

	return x * x - y * y + x * y;
}

/* Sets the border of both meshes, as far as it is in the rows from `first` up to `last`. */
static inline void set_border(const struct mesh *mesh, size_t first, size_t last)
{
	const size_t n = mesh->n;

	for (size_t i = first; i < last; i++) {
		/* All of the first and the last row, both ends of the others. */
		const size_t step = i == 0 || i == n - 1 ? 1 : n - 1;

		for (size_t j = 0; j < n; j += step)
			mesh->now[i * n + j] = mesh->next[i * n + j] = exact(n, i, j);
	}
}

/* An iteration of the rows from `first` up to `last`. Returns the sum of the squares of what has
 * changed. */
__attribute__((noipa)) static double sweep(const struct mesh *mesh, size_t first, size_t last)
{
	const size_t n = mesh->n;
	double sum = 0;

	for (size_t i = first; i < last; i++) {
		const double *above = mesh->now + (i - 1) * n, *here = mesh->now + i * n;
		const double *below = mesh->now + (i + 1) * n;
		double *to = mesh->next + i * n;

		for (size_t j = 1; j < n - 1; j++) {
			to[j] = (above[j] + below[j] + here[j - 1] + here[j + 1]) / 4;
			sum += (to[j] - here[j]) * (to[j] - here[j]);
		}
	}
	return sum;
}

/* After a sweep of all rows: what they wrote is the mesh. Returns the mean change of a point, of
 * the sum that sweep returned for all of them. */
static inline double swept(struct mesh *mesh, double sum)
{
	double *next = mesh->now;

	mesh->now = mesh->next;
	mesh->next = next;
	return sqrt(sum / (double)((mesh->n - 2) * (mesh->n - 2)));
}

/* What is left of the work: each worker has the same. */
struct progress {
	double until;
	double change; /* of the last iteration */
};

static inline struct progress progress_of(const struct arguments *arguments)
{
	return (struct progress){.until = arguments->until, .change = HUGE_VAL};
}

static inline bool arrived(const struct progress *progress)
{
	return progress->change < progress->until;
}

/* What is printed of a mesh, or a part of it. The sums are wrong if any point is, or in another's
 * place. */
struct summary {
	double sums[2];
	double error; /* how far the worst point is from the exact value */
};

static inline struct summary summary_of(const struct mesh *mesh, size_t first, size_t last)
{
	struct summary summary = {0};

	for (size_t i = first; i < last; i++)
		for (size_t j = 1; j < mesh->n - 1; j++) {
			double value = mesh->now[i * mesh->n + j];

			summary.sums[0] += value;
			summary.sums[1] += value * (double)((i * mesh->n + j) % 7 + 1);
			summary.error = fmax(summary.error, fabs(value - exact(mesh->n, i, j)));
		}
	return summary;
}

static inline void print_mesh(const struct summary *summary, const struct progress *progress)
{
	print_result("sum", summary->sums[0]);
	print_result("weighted sum", summary->sums[1]);
	print_result("change", progress->change);
	print_result("error", summary->error);
}

#endif
