// SPDX-License-Identifier: MIT OR Apache-2.0
/* Sync: control goes back and forth between two processes by P and V on two semaphores in a
 * shared segment, and at each turn the region in it is filled anew:
 *
 *	sem[0] = 0; sem[1] = 1;
 *	for (i = 0; i < iters; i++) {
 *		P(sem[my_id]);
 *		memset(region, my_id, size);
 *		V(sem[!my_id]);
 *	}
 *
 * P and V spin: no system call is made as long as both processes have a core. Plain System V:
 * which memory the key stands for is not this program's business. */
#define _GNU_SOURCE
#include "dwarfs.h"

#include <getopt.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

/* Turns of each side before the clock starts, in which what the peer wrote is checked. */
#define WARM_UP 100

/* Words that one side writes and the other spins on have a cache line each; so has what is read
 * only, and the region begins on a page. */
struct shared {
	_Alignas(128) atomic_uint sem[2][32];
	_Alignas(128) atomic_uint ready[2][32];
	_Alignas(128) uint64_t size;
	uint64_t iters;
	char text[2][120];
	_Alignas(4096) unsigned char region[];
};

__attribute__((noreturn)) static void usage(void)
{
	fprintf(stderr, "usage: sync --id 0|1 --key KEY [--size BYTES] [--iters N]\n"
			"Start it twice, with --id 0 and --id 1; 0 makes the segment and removes it.\n");
	exit(2);
}

/* There is one waiter for each semaphore: what it saw set, nobody else takes. */
static void P(atomic_uint *sem)
{
	spin_until_set(sem);
	atomic_fetch_sub_explicit(sem, 1, memory_order_acquire);
}

static void V(atomic_uint *sem)
{
	atomic_fetch_add_explicit(sem, 1, memory_order_release);
}

static struct shared *attach(int id)
{
	struct shared *shared = shmat(id, NULL, 0);

	if (shared == (void *)-1)
		fail("shmat: %s", strerror(errno));
	return shared;
}

/* Side 0: makes the segment, and removes it as soon as both are attached, so that nothing stays
 * behind however the two end. */
static struct shared *make(key_t key, uint64_t size, uint64_t iters)
{
	int id = shmget(key, sizeof(struct shared) + size, IPC_CREAT | IPC_EXCL | 0600);
	struct shared *shared;

	if (id < 0)
		fail("shmget(0x%x, IPC_CREAT | IPC_EXCL): %s%s", (unsigned)key, strerror(errno),
		     errno == EEXIST ? HINT_EXISTS : "");
	shared = attach(id);
	shared->size = size;
	shared->iters = iters;
	atomic_store_explicit(&shared->sem[1][0], 1, memory_order_relaxed);
	snprintf(shared->text[0], sizeof shared->text[0], "sync 0, pid %d", (int)getpid());
	atomic_store_explicit(&shared->ready[0][0], 1, memory_order_release);
	spin_until_set(&shared->ready[1][0]);
	if (shmctl(id, IPC_RMID, NULL) < 0)
		fail("shmctl(IPC_RMID): %s", strerror(errno));
	return shared;
}

/* Side 1: finds the segment, which side 0 may not have made yet. */
static struct shared *find(key_t key, uint64_t size, uint64_t iters)
{
	const int64_t give_up = now_ns() + PATIENCE_S * INT64_C(1000000000);
	const struct timespec moment = {.tv_nsec = 1000000};
	struct shared *shared;
	int id;

	while ((id = shmget(key, 0, 0)) < 0) {
		if (errno != ENOENT)
			fail("shmget(0x%x): %s", (unsigned)key, strerror(errno));
		if (now_ns() > give_up)
			fail("nobody made a segment of key 0x%x: start sync --id 0", (unsigned)key);
		nanosleep(&moment, NULL);
	}
	shared = attach(id);
	spin_until_set(&shared->ready[0][0]);
	if (shared->size != size || shared->iters != iters)
		fail("the two sides must be given the same --size and --iters");
	snprintf(shared->text[1], sizeof shared->text[1], "sync 1, pid %d", (int)getpid());
	atomic_store_explicit(&shared->ready[1][0], 1, memory_order_release);
	return shared;
}

static void take_turns(struct shared *shared, int my_id, uint64_t size, uint64_t turns)
{
	atomic_uint *mine = &shared->sem[my_id][0], *theirs = &shared->sem[!my_id][0];

	for (uint64_t i = 0; i < turns; i++) {
		P(mine);
		memset(shared->region, my_id, size);
		V(theirs);
	}
}

/* As take_turns, but looks first whether the region holds what the peer writes. */
static void take_checked_turns(struct shared *shared, int my_id, uint64_t size)
{
	atomic_uint *mine = &shared->sem[my_id][0], *theirs = &shared->sem[!my_id][0];

	for (int i = 0; i < WARM_UP; i++) {
		P(mine);
		/* Side 1 has the first turn, with a region that is still all zero. */
		if (!filled_with(shared->region, !my_id, size))
			fail("turn %d: the region does not hold what the peer wrote", i);
		memset(shared->region, my_id, size);
		V(theirs);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"id", required_argument, NULL, 'i'},
		{"key", required_argument, NULL, 'k'},
		{"size", required_argument, NULL, 's'},
		{"iters", required_argument, NULL, 'n'},
		{0},
	};
	uint64_t size = 8, iters = 100000;
	key_t key = IPC_PRIVATE;
	int my_id = -1, option;
	struct shared *shared;
	int64_t start, end;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'i':
			my_id = (int)number(optarg, 0, 1, usage);
			break;
		case 'k':
			key = (key_t)number(optarg, 1, UINT32_MAX, usage);
			break;
		case 's':
			size = number(optarg, 1, UINT64_C(1) << 32, usage);
			break;
		case 'n':
			iters = number(optarg, 1, UINT64_C(1) << 40, usage);
			break;
		default:
			usage();
		}
	}
	if (my_id < 0 || key == IPC_PRIVATE || optind != argc)
		usage();

	shared = my_id == 0 ? make(key, size, iters) : find(key, size, iters);
	printf("peer says: %.*s\n", (int)sizeof shared->text[0], shared->text[!my_id]);
	take_checked_turns(shared, my_id, size);
	start = now_ns();
	take_turns(shared, my_id, size, iters);
	end = now_ns();
	printf("%llu bytes, %llu turns: %.1f ns a turn\n", (unsigned long long)size,
	       (unsigned long long)(2 * iters), (double)(end - start) / (2.0 * (double)iters));
	return 0;
}
