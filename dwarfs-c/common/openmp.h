// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the OpenMP variants have in common. */
#ifndef DWARFS_OPENMP_H
#define DWARFS_OPENMP_H

#include "arguments.h"

#include <omp.h>

/* Starts the threads, which the first parallel region does; returns how long that took. */
static inline int64_t start_threads(int workers)
{
	int64_t start = now_ns();
	int there = 0;

	omp_set_dynamic(0);
	omp_set_num_threads(workers);
#pragma omp parallel reduction(+ : there)
	there = 1;
	if (there != workers)
		fail("there are %d threads in place of %d", there, workers);
	return now_ns() - start;
}

#endif
