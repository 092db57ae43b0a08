// SPDX-License-Identifier: MIT OR Apache-2.0
/* The arguments of the dwarfs, and how they print their results: the same in all variants of one,
 * so that one can be put beside the other. */
#ifndef DWARFS_ARGUMENTS_H
#define DWARFS_ARGUMENTS_H

#include "measure.h"
#include "team.h"

/* What a program may be told. */
struct arguments {
	uint64_t size;          /* --size: what this is the program says */
	struct measure measure; /* --iters, --batches */
	unsigned dims;          /* --dims: dimensions, 2 or 3 */
	bool single;            /* --type float, not double */
	double until;           /* --until: stop when an iteration changes less */
	struct team_options team; /* --workers, or --rank, --of and --key; --wait, --pin */
};

/* How a variant gets its workers, which decides what it may be told about them. */
enum variant { SERIAL, SYSV, OPENMP, MPI, HYBRID };

/* A program's own part. */
struct dwarf {
	const char *usage;  /* its own options, as in a usage line */
	const char *takes;  /* letters of those that not every dwarf has: d, t, u for --dims and so on */
	uint64_t size_max;
	struct arguments standard;
};

/* Reads the arguments; exits with the usage when they are wrong. */
struct arguments arguments_of(int argc, char **argv, const struct dwarf *dwarf, enum variant variant);

/* Memory of one's own, all zero and on a page; what is not touched takes none. */
void *allocate(size_t bytes);

/* Prints a result, in all the digits that it has. */
void print_result(const char *name, double value);

/* Prints the times: of each batch, of an iteration, and of the set-up. */
void print_times(const struct arguments *arguments, int workers, int64_t setup_ns);

#endif
