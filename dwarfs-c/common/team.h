// SPDX-License-Identifier: MIT OR Apache-2.0
/* Processes that work together in one segment of System V shared memory: a team. What a program
 * needs of a parallel machine is here and nothing else: who am I, the memory, a barrier, a sum, a
 * broadcast. Take team.h, team.c and dwarfs.h into a program of your own as they are.
 *
 * The workers are forked from one program, or started by hand with a number each, wherever they
 * are to run; then they meet by the key. A worker that waits for others either spins, which is
 * the fastest where each has a core, or sleeps in semop until it is their turn.
 *
 * Each function is called by all workers alike, in the same order. Any failure ends the program
 * with a message; a worker whose peers do not move for PATIENCE_S seconds fails. */
#ifndef DWARFS_TEAM_H
#define DWARFS_TEAM_H

#include "../dwarfs.h"

/* Most workers of a team. */
#define TEAM_MAX 64
/* Most numbers that are summed up at once, and bytes that are broadcast. */
#define TEAM_VALUES 7
#define TEAM_BYTES (TEAM_VALUES * sizeof(double))

/* How workers wait for each other. */
enum team_wait { TEAM_SPIN, TEAM_SEMAPHORE };

struct team_options {
	int size;            /* workers */
	int rank;            /* this one's number, from 0; -1: fork all others */
	key_t key;           /* where they meet; IPC_PRIVATE for workers that are forked */
	enum team_wait wait;
	bool pin;            /* each to a core of its own, as far as there are cores */
};

struct team {
	int rank;            /* of this worker, from 0 */
	int size;
	void *memory;        /* on a page, all zero at the start */
	int64_t setup_ns;    /* what making, finding and removing took, of rank 0 and the slowest other;
			      * known to rank 0 */
	/* The rest is team.c's. */
	bool forked;
	enum team_wait wait;
	int segment;
	int set;
	unsigned generation;
	struct team_shared *shared;
};

/* Makes the team, with `bytes` of memory that all of it shares. When it returns all workers are
 * there and nothing of the segment stays behind, however they end; the semaphores of a team that
 * waits asleep stay until team_end. */
struct team team_start(const struct team_options *options, size_t bytes);

/* Returns when all workers have called it. What each has written before, all see after it. */
void team_barrier(struct team *team);

/* Replaces each of `count` values (at most TEAM_VALUES) by its sum over all workers, which is the
 * same at all of them to the last bit. It is a barrier too. */
void team_sum(struct team *team, double *values, int count);

/* Gives all workers what rank 0 has in `data` (at most TEAM_BYTES). Who has it goes on: it is no
 * barrier. */
void team_broadcast(struct team *team, void *data, size_t bytes);

/* Ends the team. Forked workers end here; rank 0 returns when they have, others when started by
 * hand. */
void team_end(struct team *team);

/* Of `count` things in a row the part of worker `rank` of `size`: from `first` up to `last`, which
 * is not in it. Parts differ by one at most. */
static inline void team_part(size_t count, int rank, int size, size_t *first, size_t *last)
{
	*first = count * (size_t)rank / (size_t)size;
	*last = count * (size_t)(rank + 1) / (size_t)size;
}

#endif
