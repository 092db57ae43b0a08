// SPDX-License-Identifier: MIT OR Apache-2.0
// Signals at random moments of msgsnd and msgrcv: `msg_interrupted SCENARIO ROUNDS SEED`. Whatever a
// signal does to a call, each message is sent once and received once, and whole.
#include "interrupted.h"
#include "msg.h"
#include <sys/time.h>

enum { FULL = 10, LARGE = 4000 };

static int id;

// The size of a round's message: in one piece, and in several.
static size_t size_of(long round)
{
    return round % 5 == 0 ? (size_t)(round * 7 % 3000) : (size_t)(round % 100);
}

static int receive_in_some_way(long round)
{
    static const struct {
        long want;
        int flags;
    } ways[] = {{0, 0}, {1, 0}, {-3, NOERROR}, {7, EXCEPT}};
    struct message message;
    ssize_t got = msgrcv(id, &message, ROOM, ways[round % 4].want, ways[round % 4].flags);
    if (got < 0)
        return errno;
    SAME(got, size_of(round));
    CHECK(is_filled(message.text, (size_t)got, (unsigned)round));
    return 0;
}

static int send_round(long round)
{
    return put_bytes(id, 1, size_of(round), (unsigned)round, 0) == 0 ? 0 : errno;
}

static int (*one_round)(long round);

static void *sleeper(void *rounds)
{
    for (long round = 1; round <= *(long *)rounds; round++) {
        until(&shared->asked, round);
        int result = one_round(round);
        // The signal may be on its way still.
        until(&shared->handled, round);
        CHECK(result == 0 || result == EINTR);
        // It was interrupted, or not: then it did nothing, or all.
        if (result == EINTR)
            SAME(one_round(round), 0);
        shared->result = result;
        shared->answered = round;
    }
    return NULL;
}

static pid_t child;
static pthread_t thread;

static void disturb(void)
{
    CHECK(child != 0 ? kill(child, SIGUSR1) == 0 : pthread_kill(thread, SIGUSR1) == 0);
}

static void start(char **args, long *rounds, int in_thread)
{
    prepare_signals(args[1]);
    *rounds = strtol(args[0], NULL, 0);
    id = queue();
    if (in_thread) {
        CHECK(pthread_create(&thread, NULL, sleeper, rounds) == 0);
        return;
    }
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sleeper(rounds);
        _exit(0);
    }
}

static void end(long rounds)
{
    SAME(shared->handled, rounds);
    if (child != 0)
        wait_ok(child);
    else
        CHECK(pthread_join(thread, NULL) == 0);
    queue_gone(id);
}

// A signal and a message at about the same time.
static void receiver_rounds(char **args, int in_thread)
{
    long rounds, interrupted = 0;
    one_round = receive_in_some_way;
    start(args, &rounds, in_thread);
    for (long round = 1; round <= rounds; round++) {
        int first = (int)below(2);
        shared->asked = round;
        some_time();
        if (first)
            disturb();
        else
            CHECK(send_round(round) == 0);
        if (below(2))
            some_time();
        if (first)
            CHECK(send_round(round) == 0);
        else
            disturb();
        until(&shared->answered, round);
        interrupted += shared->result == EINTR;
        HOLDS(id, 0, 0);
    }
    // Else there is something wrong with the test.
    CHECK(interrupted > 0 && interrupted < rounds);
    end(rounds);
}

static void receiving(char **args)
{
    receiver_rounds(args, 0);
}

static void receiving_in_a_thread(char **args)
{
    receiver_rounds(args, 1);
}

// A signal, and room, at about the same time.
static void sender_rounds(char **args, int in_thread)
{
    long rounds, interrupted = 0;
    one_round = send_round;
    start(args, &rounds, in_thread);
    for (long round = 1; round <= rounds; round++) {
        int first = (int)below(2);
        CHECK(put_bytes(id, 9, FULL, 0, 0) == 0);
        set_bytes(id, FULL);
        if (size_of(round) == 0)
            set_bytes(id, 0);
        shared->asked = round;
        some_time();
        if (first)
            disturb();
        else
            set_bytes(id, LARGE);
        if (below(2))
            some_time();
        if (first)
            set_bytes(id, LARGE);
        else
            disturb();
        until(&shared->answered, round);
        interrupted += shared->result == EINTR;
        HOLDS(id, 2, FULL + size_of(round));
        takes(id, 1, size_of(round), (unsigned)round);
        takes(id, 9, FULL, 0);
    }
    CHECK(interrupted > 0 && interrupted < rounds);
    end(rounds);
}

static void sending(char **args)
{
    sender_rounds(args, 0);
}

static void sending_in_a_thread(char **args)
{
    sender_rounds(args, 1);
}

// Nothing but the signal comes: the call is ended by it, not by a message.
static void alone(char **args)
{
    prepare_signals(args[1]);
    long rounds = strtol(args[0], NULL, 0);
    id = queue();
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        set_bytes(id, LARGE);
        for (long round = 1; round <= rounds; round++) {
            SAME(round % 2 ? receive_in_some_way(round) : put_bytes(id, 1, LARGE + 1, 0, 0) == 0 ? 0 : errno, EINTR);
            SAME(shared->handled, round);
            shared->answered = round;
        }
        _exit(0);
    }
    for (long round = 1; round <= rounds; round++) {
        until(&shared->answered, round - 1);
        until_asleep(child);
        some_time();
        disturb();
    }
    until(&shared->answered, rounds);
    HOLDS(id, 0, 0);
    end(rounds);
}

static void interrupt_often(void)
{
    struct itimerval often = {{0, 60 + getpid() % 7}, {0, 50}};
    handle(SIGALRM, counts, SA_RESTART);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
}

// A stream of messages between two processes that are interrupted all the time, through a queue that
// is now too large and now too small, until so many signals have come.
static void stream(char **args)
{
    prepare_signals(args[1]);
    long signals = strtol(args[0], NULL, 0);
    id = queue();
    set_bytes(id, 400);
    pid_t sends = fork();
    if (sends == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        interrupt_often();
        long round;
        for (round = 1; shared->handled < signals; round++) {
            struct message message = {.type = 1};
            size_t size = size_of(round) % 400;
            fill(message.text, size, (unsigned)round);
            while (msgsnd(id, &message, size, 0) != 0)
                SAME(errno, EINTR);
            if (below(64) == 0)
                some_time();
        }
        shared->asked = round;
        while (put(id, 2, "end", 0) != 0)
            SAME(errno, EINTR);
        _exit(0);
    }
    pid_t receives = fork();
    if (receives == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        interrupt_often();
        for (long round = 1;; round++) {
            struct message message;
            ssize_t got;
            while ((got = msgrcv(id, &message, ROOM, 0, 0)) < 0)
                SAME(errno, EINTR);
            if (message.type == 2) {
                SAME(round, shared->asked);
                _exit(0);
            }
            SAME(got, size_of(round) % 400);
            CHECK(is_filled(message.text, (size_t)got, (unsigned)round));
            if (below(64) == 0)
                some_time();
        }
    }
    wait_ok(sends);
    wait_ok(receives);
    HOLDS(id, 0, 0);
    queue_gone(id);
}

SCENARIOS({"alone", alone},
          {"receiving", receiving},
          {"receiving_in_a_thread", receiving_in_a_thread},
          {"sending", sending},
          {"sending_in_a_thread", sending_in_a_thread},
          {"stream", stream})
