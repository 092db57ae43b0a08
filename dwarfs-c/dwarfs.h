// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the programs of this directory share: reading of arguments, clocks, and waiting by
 * spinning. They are plain System V and sockets: nothing here knows of Vshmem. It is included
 * before any header of the system. */
#ifndef DWARFS_H
#define DWARFS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <time.h>

/* Patience with a peer that does not move, in seconds: far longer than any scheduler takes. */
#define PATIENCE_S 30

/* Spins before the core is offered to others, about a millisecond: far longer than a turn on two
 * cores takes, and long enough not to lose the core each time that the peer has lost its own. */
#define SPINS 20000

/* What to do when there is something of that key already; the option of ipcrm says what. */
#define HINT_EXISTS(option) "; remove it with ipcrm -" option " KEY, or take another key"

/* Prints "PROGRAM: message" to stderr and exits 1. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

/* Nanoseconds of the clock that is never set. */
static inline int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Tells the core that this is a spin. */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* How long spinning can pay: not at all where the peer runs only while this process does not. */
static inline unsigned useful_spins(void)
{
	static int cores;

	if (cores == 0) {
		cpu_set_t set;

		cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
	}
	return cores > 1 ? SPINS : 0;
}

/* Puts this process on one core: of those that it may use the index-th, counted round. */
static inline void pin(unsigned index)
{
	cpu_set_t all, one;
	int core = -1;

	/* Counted before: the peers are put on other cores, and spinning goes on to pay. */
	useful_spins();
	if (sched_getaffinity(0, sizeof all, &all) < 0)
		fail("sched_getaffinity: %s", strerror(errno));
	index %= (unsigned)CPU_COUNT(&all);
	do {
		core++;
		if (CPU_ISSET(core, &all) && index-- == 0)
			break;
	} while (core < CPU_SETSIZE);
	CPU_ZERO(&one);
	CPU_SET(core, &one);
	if (sched_setaffinity(0, sizeof one, &one) < 0)
		fail("sched_setaffinity to core %d: %s", core, strerror(errno));
}

/* One wait by spinning; all zero at its beginning. */
struct spin {
	unsigned spins;
	int64_t give_up;
};

/* Between two looks. After many of them each further one gives the core away first, so that two
 * processes on one core get on as well. */
static inline void spin_once(struct spin *spin)
{
	if (spin->spins < useful_spins()) {
		spin->spins++;
		relax();
		return;
	}
	sched_yield();
	if (spin->give_up == 0)
		spin->give_up = now_ns() + PATIENCE_S * INT64_C(1000000000);
	else if (now_ns() > spin->give_up)
		fail("the peer has not moved for %d s: is it still there?", PATIENCE_S);
}

/* Goes on with a wait until *word is not 0 and returns it. */
static inline unsigned spin_on(atomic_uint *word, struct spin spin)
{
	unsigned value;

	while ((value = atomic_load_explicit(word, memory_order_acquire)) == 0)
		spin_once(&spin);
	return value;
}

/* Waits until *word is not 0 and returns it. */
static inline unsigned spin_until_set(atomic_uint *word)
{
	return spin_on(word, (struct spin){0});
}

/* The same for a peer that is only starting. That takes far longer than a turn, and may need this
 * core: each look offers it to others. */
static inline unsigned wait_until_set(atomic_uint *word)
{
	return spin_on(word, (struct spin){.spins = SPINS});
}

/* The id of what a peer makes under the key, as soon as it is there; `get` asks for it. */
static inline int find(int (*get)(key_t key), key_t key, const char *what)
{
	const int64_t give_up = now_ns() + PATIENCE_S * INT64_C(1000000000);
	struct timespec moment = {.tv_nsec = 20000};
	int id;

	while ((id = get(key)) < 0) {
		if (errno != ENOENT)
			fail("%sget(0x%x): %s", what, (unsigned)key, strerror(errno));
		if (now_ns() > give_up)
			fail("nobody has made what key 0x%x stands for: is the peer started?",
			     (unsigned)key);
		nanosleep(&moment, NULL);
		if (moment.tv_nsec < 1000000)
			moment.tv_nsec *= 2;
	}
	return id;
}

/* The number that an option has as its argument, in C's notations (0x for hexadecimal); exits
 * with the usage when there is none between low and high. */
static inline uint64_t number(const char *text, uint64_t low, uint64_t high, void (*usage)(void))
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || end == text || *end || strchr(text, '-') || value < low || value > high) {
		fprintf(stderr, "%s: '%s' is not a number from %llu to %llu\n",
			program_invocation_short_name, text, (unsigned long long)low,
			(unsigned long long)high);
		usage();
	}
	return value;
}

/* Whether each of `size` bytes at `region` is `byte`. */
static inline bool filled_with(const unsigned char *region, int byte, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (region[i] != byte)
			return false;
	return true;
}

#endif
