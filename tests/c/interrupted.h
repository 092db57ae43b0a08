// SPDX-License-Identifier: MIT OR Apache-2.0
// Signals at random moments of short waits, round after round: what who waits and who disturbs it share.
#ifndef INTERRUPTED_H
#define INTERRUPTED_H
#include "check.h"
#include "random.h"
#include <stdatomic.h>

// What sleeper and waker share.
static struct shared {
    _Atomic long asked;    // rounds that the waker has begun
    _Atomic long answered; // rounds that the sleeper has ended
    _Atomic long handled;  // signals whose handler has run
    _Atomic int result;    // of the round: 0 or an errno
} *shared;

static inline void some_time(void)
{
    unsigned kind = below(16);
    // From nothing to longer than anybody spins before sleeping.
    unsigned turns = below(kind < 8 ? 64 : kind < 14 ? 2048 : 65536);
    for (volatile unsigned n = 0; n < turns; n++)
        __builtin_ia32_pause();
    if (kind == 15)
        sched_yield();
}

static inline void counts(int signal)
{
    (void)signal;
    int before = errno;
    shared->handled++;
    errno = before;
}

static inline void until(_Atomic long *number, long wanted)
{
    for (int n = 0; *number < wanted; n++)
        if (n > 100)
            sched_yield();
}

// A handler that counts, for a signal that is to interrupt.
static inline void prepare_signals(const char *random)
{
    seed(random);
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    handle(SIGUSR1, counts, SA_RESTART);
}

#endif
