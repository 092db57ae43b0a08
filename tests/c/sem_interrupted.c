// SPDX-License-Identifier: MIT OR Apache-2.0
// Signals at random moments of short waits: `sem_interrupted SCENARIO ROUNDS SEED`. A signal that comes
// once the call has begun to wait ends it. One that is lost is no matter of time here: nobody would
// ever wake the sleeper again, and the program hangs.
#include "interrupted.h"
#include "sem.h"
#include <sys/time.h>

enum { SEM, OTHER };

static int set;

static int wait_in_some_way(long round)
{
    static const struct timespec long_time = {100000, 0};
    switch (round % 4) {
    case 0:
        return op(set, SEM, -1, UNDO);
    case 1:
        return semtimedop(set, OPS({SEM, -1, 0}), &long_time);
    case 2:
        return semop(set, OPS({OTHER, 0, 0}, {SEM, -1, 0}));
    default:
        return op(set, SEM, -1, 0);
    }
}

static void *sleeper_thread(void *rounds)
{
    for (long round = 1; round <= *(long *)rounds; round++) {
        until(&shared->asked, round);
        errno = 0;
        int got = wait_in_some_way(round);
        int result = got == 0 ? 0 : errno;
        // The signal may be on its way still.
        until(&shared->handled, round);
        if (result == 0 && round % 4 == 0) {
            // Not to be undone later.
            does(set, SEM, 1, UNDO);
            does(set, SEM, -1, 0);
        }
        shared->result = result;
        shared->answered = round;
    }
    return NULL;
}

static void prepare(char **args)
{
    prepare_signals(args[1]);
    set = set_of(2);
}

// One round, seen from the waker: the sleeper waits.
static void begin(long round)
{
    shared->asked = round;
    until_count(set, SEM, GETNCNT, 1);
    some_time();
}

static void no_trace(int expected)
{
    SAME(semctl(set, SEM, GETNCNT), 0);
    SAME(value(set, SEM), expected);
}

static pid_t start_sleeper(long rounds)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sleeper_thread(&rounds);
        _exit(0);
    }
    return child;
}

static void alone(char **args)
{
    long rounds = strtol(args[0], NULL, 0);
    prepare(args);
    pid_t child = start_sleeper(rounds);
    for (long round = 1; round <= rounds; round++) {
        begin(round);
        CHECK(kill(child, SIGUSR1) == 0);
        until(&shared->answered, round);
        SAME(shared->result, EINTR);
        no_trace(0);
    }
    SAME(shared->handled, rounds);
    wait_ok(child);
    set_gone(set);
}

static void alone_to_a_thread(char **args)
{
    long rounds = strtol(args[0], NULL, 0);
    prepare(args);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, sleeper_thread, &rounds) == 0);
    for (long round = 1; round <= rounds; round++) {
        begin(round);
        CHECK(pthread_kill(thread, SIGUSR1) == 0);
        until(&shared->answered, round);
        SAME(shared->result, EINTR);
        no_trace(0);
    }
    SAME(shared->handled, rounds);
    CHECK(pthread_join(thread, NULL) == 0);
    set_gone(set);
}

// Together with what it waits for: either, but not both and not neither.
static void with_a_post(char **args)
{
    long rounds = strtol(args[0], NULL, 0), granted = 0;
    prepare(args);
    pid_t child = start_sleeper(rounds);
    for (long round = 1; round <= rounds; round++) {
        begin(round);
        int first = (int)below(2);
        if (first)
            CHECK(kill(child, SIGUSR1) == 0);
        else
            does(set, SEM, 1, 0);
        if (below(2))
            some_time();
        if (first)
            does(set, SEM, 1, 0);
        else
            CHECK(kill(child, SIGUSR1) == 0);
        until(&shared->answered, round);
        int result = shared->result;
        CHECK(result == 0 || result == EINTR);
        no_trace(result == 0 ? 0 : 1);
        if (result == 0)
            granted++;
        else
            does(set, SEM, -1, NOWAIT);
    }
    SAME(shared->handled, rounds);
    // Else there is something wrong with the test.
    CHECK(granted > 0 && granted < rounds);
    wait_ok(child);
    set_gone(set);
}

// A timer of the process's own, and a timeout at about the same moment.
static void by_a_timer(char **args)
{
    long rounds = strtol(args[0], NULL, 0);
    prepare(args);
    signal(SIGALRM, counts);
    for (long round = 1; round <= rounds; round++) {
        struct itimerval timer = {.it_value = {0, 1 + (int)below(200)}};
        struct timespec timeout = {0, 1 + (long)below(200000)};
        CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
        errno = 0;
        SAME(semtimedop(set, OPS({SEM, -1, 0}), &timeout), -1);
        CHECK(errno == EAGAIN || errno == EINTR);
        // It was a handler that made it EINTR.
        if (errno == EINTR)
            SAME(shared->handled, round);
        until(&shared->handled, round);
        no_trace(0);
    }
    set_gone(set);
}

SCENARIOS({"alone", alone},
          {"alone_to_a_thread", alone_to_a_thread},
          {"with_a_post", with_a_post},
          {"by_a_timer", by_a_timer})
