// SPDX-License-Identifier: MIT OR Apache-2.0
/* Sync: control goes back and forth between two processes by P and V on two semaphores in a
 * shared segment, and at each turn the region in it is filled anew (common/region.h). P and V
 * spin: no system call is made as long as both processes have a core. */
#include "common/region.h"

__attribute__((noreturn)) static void usage(void)
{
	fprintf(stderr, "usage: sync " PAIR_USAGE
			"Start it twice, with --id 0 and --id 1; 0 makes the segment and removes it.\n");
	exit(2);
}

/* There is one waiter for each semaphore: what it saw set, nobody else takes. */
static void P(struct shared *shared, int sem)
{
	spin_until_set(&shared->sem[sem][0]);
	atomic_fetch_sub_explicit(&shared->sem[sem][0], 1, memory_order_acquire);
}

static void V(struct shared *shared, int sem)
{
	atomic_fetch_add_explicit(&shared->sem[sem][0], 1, memory_order_release);
}

int main(int argc, char **argv)
{
	struct pair pair = pair_of(argc, argv, UINT64_C(1) << 32, usage);

	work_in_region(&pair);
	return 0;
}
