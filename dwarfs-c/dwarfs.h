// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the programs of this directory share: reading of arguments, clocks, and waiting by
 * spinning. They are plain System V and sockets: nothing here knows of Vshmem. */
#ifndef DWARFS_H
#define DWARFS_H

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Patience with a peer that does not move, in seconds: far longer than any scheduler takes. */
#define PATIENCE_S 30

/* Spins before the core is offered to others, about a millisecond: far longer than a turn on two
 * cores takes, and long enough not to lose the core each time that the peer has lost its own. */
#define SPINS 20000

/* What to do when a segment of that key is there already. */
#define HINT_EXISTS "; remove it with ipcrm -M KEY, or take another key"

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

/* Waits until *word is not 0 and returns it. After many spins each further look gives the core
 * away first, so that two processes on one core get on as well. */
static inline unsigned spin_until_set(atomic_uint *word)
{
	const unsigned limit = useful_spins();
	int64_t give_up = 0;
	unsigned value;

	for (unsigned spins = 0; (value = atomic_load_explicit(word, memory_order_acquire)) == 0;) {
		if (spins < limit) {
			spins++;
			relax();
			continue;
		}
		sched_yield();
		if (give_up == 0)
			give_up = now_ns() + PATIENCE_S * INT64_C(1000000000);
		else if (now_ns() > give_up)
			fail("the peer has not moved for %d s: is it still there?", PATIENCE_S);
	}
	return value;
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
