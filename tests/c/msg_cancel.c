// SPDX-License-Identifier: MIT OR Apache-2.0
// Cancellation of threads: msgsnd and msgrcv are cancellation points, msgget and msgctl are none.
#include "msg.h"

enum { FULL = 10, LARGE = 8000, ENOUGH = 9000 };
enum { RECEIVES_SHORT, RECEIVES_LARGE, SENDS_SHORT, SENDS_LARGE, KINDS };

static int id;
static char order[8];

static void note(char letter)
{
    size_t length = strlen(order);
    CHECK(length + 1 < sizeof order);
    order[length] = letter;
}

// Cleanup handlers use the queue: what was cancelled is over.
static void first_cleanup(void *unused)
{
    (void)unused;
    note('1');
    HOLDS(id, 1, FULL);
    set_bytes(id, ENOUGH);
    sends(id, 5, "five");
    HOLDS(id, 2, FULL + 4);
}

static void second_cleanup(void *unused)
{
    (void)unused;
    note('2');
    RECEIVES(id, 5, 0, 5, "five");
    set_bytes(id, FULL);
}

static void key_ends(void *unused)
{
    (void)unused;
    note('k');
    HOLDS(id, 1, FULL);
}

struct thread {
    pthread_t thread;
    int kind;
    _Atomic pid_t number;
    _Atomic int ready, go_on;
    ssize_t result;
};

static pthread_key_t key;

static ssize_t call(int kind, int flags)
{
    static __thread struct message message;
    switch (kind) {
    case RECEIVES_SHORT:
        return msgrcv(id, &message, 64, 5, flags);
    case RECEIVES_LARGE:
        return msgrcv(id, &message, ROOM, -5, flags);
    case SENDS_SHORT:
        return put_bytes(id, 5, 3, 1, flags);
    default:
        return put_bytes(id, 5, LARGE, 1, flags);
    }
}

static void *sleeps(void *data)
{
    struct thread *me = data;
    CHECK(pthread_setspecific(key, me) == 0);
    pthread_cleanup_push(second_cleanup, NULL);
    pthread_cleanup_push(first_cleanup, NULL);
    me->number = (pid_t)syscall(SYS_gettid);
    call(me->kind, 0);
    CHECK(!"it came back");
    pthread_cleanup_pop(0);
    pthread_cleanup_pop(0);
    return NULL;
}

static void prepare(void)
{
    id = queue();
    set_bytes(id, FULL);
    CHECK(put_bytes(id, 9, FULL, 0, 0) == 0);
    if (key == 0)
        CHECK(pthread_key_create(&key, key_ends) == 0);
}

static struct thread *start(int kind, void *(*body)(void *))
{
    static struct thread threads[16];
    static int next;
    struct thread *thread = &threads[next++ % 16];
    memset(thread, 0, sizeof *thread);
    thread->kind = kind;
    CHECK(pthread_create(&thread->thread, NULL, body, thread) == 0);
    while (thread->number == 0)
        sched_yield();
    return thread;
}

static void *end_of(struct thread *thread)
{
    void *result;
    CHECK(pthread_join(thread->thread, &result) == 0);
    return result;
}

static void blocked_threads_end(char **args)
{
    (void)args;
    prepare();
    for (int n = 0; n < share(300) * KINDS; n++) {
        memset(order, 0, sizeof order);
        struct thread *thread = start(n % KINDS, sleeps);
        if (n % 3)
            until_thread_asleep(getpid(), thread->number);
        CHECK(pthread_cancel(thread->thread) == 0);
        CHECK(end_of(thread) == PTHREAD_CANCELED);
        SAME(strcmp(order, "12k"), 0);
        // Nobody takes what is sent, nothing comes that was to be sent.
        set_bytes(id, ENOUGH);
        HOLDS(id, 1, FULL);
        sends(id, 5, "five");
        RECEIVES(id, 5, 0, 5, "five");
        HOLDS(id, 1, FULL);
        set_bytes(id, FULL);
    }
    queue_gone(id);
}

static void *waits_for_cancel(void *data)
{
    struct thread *me = data;
    me->number = (pid_t)syscall(SYS_gettid);
    while (!me->go_on)
        sched_yield();
    // None of these is a cancellation point.
    struct msqid_ds ds = queue_stat(id);
    CHECK(msgctl(id, IPC_SET, &ds) == 0);
    CHECK(msgget(KEY, 0) == id);
    limits();
    me->ready = 1;
    call(me->kind, NOWAIT);
    CHECK(!"it came back");
    return NULL;
}

// A cancellation that is pending acts though the call need not wait; and before it does anything.
static void pending_acts_at_once(char **args)
{
    (void)args;
    id = queue();
    for (int n = 0; n < 10 * KINDS; n++) {
        sends(id, 5, "five");
        struct thread *thread = start(n % KINDS, waits_for_cancel);
        CHECK(pthread_cancel(thread->thread) == 0);
        SAME(thread->ready, 0);
        thread->go_on = 1;
        CHECK(end_of(thread) == PTHREAD_CANCELED);
        SAME(thread->ready, 1);
        HOLDS(id, 1, 4);
        RECEIVES(id, 0, 0, 5, "five");
    }
    queue_gone(id);
}

static void *cannot_be(void *data)
{
    struct thread *me = data;
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL) == 0);
    me->number = (pid_t)syscall(SYS_gettid);
    me->result = call(me->kind, 0);
    // And not yet.
    me->ready = 1;
    SAME(put(id, 9, "", NOWAIT), 0);
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL) == 0);
    pthread_testcancel();
    CHECK(!"it came back");
    return NULL;
}

static void disabled_it_does_nothing(char **args)
{
    (void)args;
    for (int kind = 0; kind < KINDS; kind++) {
        prepare();
        struct thread *thread = start(kind, cannot_be);
        until_thread_asleep(getpid(), thread->number);
        CHECK(pthread_cancel(thread->thread) == 0);
        for (int n = 0; n < 20; n++)
            until_thread_asleep(getpid(), thread->number);
        SAME(thread->ready, 0);
        set_bytes(id, ENOUGH);
        if (kind < SENDS_SHORT)
            sends(id, 5, "five");
        CHECK(end_of(thread) == PTHREAD_CANCELED);
        SAME(thread->ready, 1);
        SAME(thread->result, kind < SENDS_SHORT ? 4 : 0);
        HOLDS(id, kind < SENDS_SHORT ? 2 : 3, FULL + (kind < SENDS_SHORT ? 0 : kind == SENDS_SHORT ? 3 : LARGE));
        queue_gone(id);
    }
}

static void *loops(void *data)
{
    struct thread *me = data;
    me->number = (pid_t)syscall(SYS_gettid);
    for (;;)
        call(me->kind, me->kind < SENDS_SHORT ? 0 : NOWAIT);
    return NULL;
}

// Cancelled while all sorts of things happen: the rest of the process goes on using the queue.
static void at_any_moment(char **args)
{
    (void)args;
    id = queue();
    for (int n = 0; n < share(300); n++) {
        struct thread *thread = start(n % KINDS, loops);
        for (int k = 0; k < n % 7; k++) {
            CHECK(put_bytes(id, 5, 10, 1, NOWAIT) == 0 || errno == EAGAIN);
            take(id, ROOM, 5, NOWAIT);
        }
        CHECK(pthread_cancel(thread->thread) == 0);
        CHECK(end_of(thread) == PTHREAD_CANCELED);
        while (take(id, ROOM, 0, NOWAIT) >= 0)
            ;
        HOLDS(id, 0, 0);
        sends(id, 5, "five");
        RECEIVES(id, 0, 0, 5, "five");
    }
    queue_gone(id);
}

static _Atomic int handled;

static void counts(int signal)
{
    (void)signal;
    handled++;
}

static void *interrupted(void *data)
{
    struct thread *me = data;
    me->number = (pid_t)syscall(SYS_gettid);
    me->result = call(me->kind, 0);
    SAME(errno, EINTR);
    me->ready = 1;
    call(me->kind, 0);
    CHECK(!"it came back");
    return NULL;
}

// A signal first, then the cancellation.
static void after_a_signal(char **args)
{
    (void)args;
    prepare();
    handle(SIGUSR1, counts, SA_RESTART);
    for (int n = 0; n < 5 * KINDS; n++) {
        struct thread *thread = start(n % KINDS, interrupted);
        until_thread_asleep(getpid(), thread->number);
        CHECK(pthread_kill(thread->thread, SIGUSR1) == 0);
        while (!thread->ready)
            sched_yield();
        SAME(thread->result, -1);
        SAME(handled, n + 1);
        if (n % 2)
            until_thread_asleep(getpid(), thread->number);
        CHECK(pthread_cancel(thread->thread) == 0);
        CHECK(end_of(thread) == PTHREAD_CANCELED);
        HOLDS(id, 1, FULL);
    }
    queue_gone(id);
}

SCENARIOS({"blocked_threads_end", blocked_threads_end},
          {"pending_acts_at_once", pending_acts_at_once},
          {"disabled_it_does_nothing", disabled_it_does_nothing},
          {"at_any_moment", at_any_moment},
          {"after_a_signal", after_a_signal})
