// SPDX-License-Identifier: MIT OR Apache-2.0
/* Two processes that fill a region in a shared segment by turns:
 *
 *	sem[0] = 0; sem[1] = 1;
 *	for (i = 0; i < iters; i++) {
 *		P(sem[my_id]);
 *		memset(region, my_id, size);
 *		V(sem[!my_id]);
 *	}
 *
 * Which P and V these are the program says that includes this. Plain System V: which memory the
 * key stands for is not its business. */
#ifndef DWARFS_REGION_H
#define DWARFS_REGION_H

#include "pair.h"

#include <sys/shm.h>

/* Words that one side writes and the other spins on have a cache line each; so has what is read
 * only, and the region begins on a page. */
struct shared {
	_Alignas(128) atomic_uint sem[2][32]; /* for a P and V that need no more than memory */
	_Alignas(128) atomic_uint ready[2][32];
	_Alignas(128) uint64_t size;
	uint64_t iters;
	char text[2][120];
	_Alignas(4096) unsigned char region[];
};

/* The program's: both work on semaphore number `sem`, of which side 1's is 1 at the beginning. */
static void P(struct shared *shared, int sem);
static void V(struct shared *shared, int sem);

static struct shared *attach(int id)
{
	struct shared *shared = shmat(id, NULL, 0);

	if (shared == (void *)-1)
		fail("shmat: %s", strerror(errno));
	return shared;
}

/* Side 0: makes the segment, and removes it as soon as both are attached, so that nothing stays
 * behind however the two end. */
static struct shared *make_region(const struct pair *pair)
{
	int id = shmget(pair->key, sizeof(struct shared) + pair->size, IPC_CREAT | IPC_EXCL | 0600);
	struct shared *shared;

	if (id < 0)
		fail("shmget(0x%x, IPC_CREAT | IPC_EXCL): %s%s", (unsigned)pair->key,
		     strerror(errno), errno == EEXIST ? HINT_EXISTS("M") : "");
	shared = attach(id);
	shared->size = pair->size;
	shared->iters = pair->measure.iters;
	atomic_store_explicit(&shared->sem[1][0], 1, memory_order_relaxed);
	snprintf(shared->text[0], sizeof shared->text[0], "%s 0, pid %d",
		 program_invocation_short_name, (int)getpid());
	atomic_store_explicit(&shared->ready[0][0], 1, memory_order_release);
	wait_until_set(&shared->ready[1][0]);
	if (shmctl(id, IPC_RMID, NULL) < 0)
		fail("shmctl(IPC_RMID): %s", strerror(errno));
	return shared;
}

static int get_region(key_t key)
{
	return shmget(key, 0, 0);
}

/* Side 1: finds the segment, which side 0 may not have made yet. */
static struct shared *find_region(const struct pair *pair)
{
	struct shared *shared = attach(find(get_region, pair->key, "shm"));

	wait_until_set(&shared->ready[0][0]);
	if (shared->size != pair->size || shared->iters != pair->measure.iters)
		fail("the two sides must be given the same --size and --iters");
	snprintf(shared->text[1], sizeof shared->text[1], "%s 1, pid %d",
		 program_invocation_short_name, (int)getpid());
	atomic_store_explicit(&shared->ready[1][0], 1, memory_order_release);
	return shared;
}

struct side {
	struct shared *shared;
	int my_id;
	uint64_t size;
};

static uint64_t take_turns(void *with, uint64_t turns)
{
	const struct side side = *(const struct side *)with;

	for (uint64_t i = 0; i < turns; i++) {
		P(side.shared, side.my_id);
		memset(side.shared->region, side.my_id, side.size);
		V(side.shared, !side.my_id);
	}
	return turns;
}

/* As take_turns, but looks first whether the region holds what the peer writes. */
static void take_checked_turns(const struct side *side)
{
	unsigned char *region = side->shared->region;

	for (int i = 0; i < WARM_UP; i++) {
		P(side->shared, side->my_id);
		/* Side 1 has the first turn, with a region that is still all zero. */
		if (!filled_with(region, !side->my_id, side->size))
			fail("turn %d: the region does not hold what the peer wrote", i);
		memset(region, side->my_id, side->size);
		V(side->shared, !side->my_id);
	}
}

/* All of it, after the arguments. */
static void work_in_region(struct pair *pair)
{
	struct side side = {.my_id = pair->my_id, .size = pair->size};

	side.shared = pair->my_id == 0 ? make_region(pair) : find_region(pair);
	printf("peer says: %.*s\n", (int)sizeof side.shared->text[0],
	       side.shared->text[!pair->my_id]);
	take_checked_turns(&side);
	measure(&pair->measure, take_turns, &side);
	print_turns(&pair->measure, pair->size);
}

#endif
