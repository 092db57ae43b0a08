// SPDX-License-Identifier: MIT OR Apache-2.0
// Signals that come to who sleeps in msgsnd or msgrcv.
#include "msg.h"
#include <setjmp.h>
#include <sys/time.h>

static volatile sig_atomic_t caught;
static int id;

static void notes(int signal)
{
    caught = signal;
}

enum { FULL = 10 }; // bytes of the message that keeps senders waiting, and that the queue takes

enum { CUTS, TYPE, BELOW, OTHER, SENDS, SENDS_LARGE, KINDS };

enum { IS_SENDER = SENDS };

// Sleeps in some way in a queue as `prepare` leaves it.
static int sleep_somehow(int kind)
{
    switch (kind) {
    case CUTS:
        return (int)take(id, ROOM, 5, NOERROR);
    case TYPE:
        return (int)take(id, 20, 5, 0);
    case BELOW:
        return (int)take(id, 20, -5, 0);
    case OTHER:
        return (int)take(id, 20, 9, EXCEPT);
    case SENDS:
        return put_bytes(id, 5, 3, 1, 0);
    default:
        return put_bytes(id, 5, 3000, 1, 0);
    }
}

static void prepare(void)
{
    id = queue();
    set_bytes(id, FULL);
    CHECK(put_bytes(id, 9, FULL, 0, 0) == 0);
}

// Nothing is left of who slept: what is sent now is not taken by it, and nothing comes from it.
static void nobody_sleeps(void)
{
    HOLDS(id, 1, FULL);
    set_bytes(id, 4000);
    HOLDS(id, 1, FULL);
    sends(id, 5, "five");
    HOLDS(id, 2, FULL + 4);
    RECEIVES(id, 5, 0, 5, "five");
    set_bytes(id, FULL);
}

static pid_t asleep_somehow(int kind, int signal, void (*handler)(int), int flags, int error)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (handler != NULL)
            handle(signal, handler, flags);
        FAILS(error, sleep_somehow(kind));
        if (error == EINTR) {
            SAME(caught, signal);
            nobody_sleeps();
        }
        _exit(0);
    }
    until_asleep(child);
    return child;
}

static void handlers_interrupt(char **args)
{
    static const int flags[] = {0, SA_RESTART, SA_SIGINFO, SA_RESTART | SA_NODEFER, SA_RESETHAND};
    (void)args;
    prepare();
    for (int n = 0; n < 5 * KINDS; n++) {
        pid_t child = asleep_somehow(n % KINDS, SIGUSR1, notes, flags[n / KINDS], EINTR);
        CHECK(kill(child, SIGUSR1) == 0);
        wait_ok(child);
        nobody_sleeps();
    }
    // By signal(), which has SA_RESTART, and by the other way that there is.
    for (int n = 0; n < 2 * KINDS; n++) {
        pid_t child = fork();
        if (child == 0) {
            CHECK((n < KINDS ? signal : sysv_signal)(SIGUSR1, notes) == SIG_DFL);
            FAILS(EINTR, sleep_somehow(n % KINDS));
            _exit(0);
        }
        until_asleep(child);
        CHECK(kill(child, SIGUSR1) == 0);
        wait_ok(child);
        nobody_sleeps();
    }
    queue_gone(id);
}

static void wait_stopped(pid_t child)
{
    int status = 0;
    CHECK(kill(child, SIGSTOP) == 0);
    SAME(waitpid(child, &status, WUNTRACED), child);
    CHECK(WIFSTOPPED(status));
}

// A stop without a handler does not end it: the call begins anew.
static void stopping_does_not_interrupt(char **args)
{
    (void)args;
    prepare();
    for (int n = 0; n < 2 * KINDS; n++) {
        int kind = n % KINDS;
        pid_t child = fork();
        if (child == 0) {
            if (n >= KINDS)
                signal(SIGCONT, SIG_IGN);
            SAME(sleep_somehow(kind), kind < IS_SENDER ? 4 : 0);
            _exit(0);
        }
        for (int round = 0; round < 3; round++) {
            until_asleep(child);
            wait_stopped(child);
            CHECK(kill(child, SIGCONT) == 0);
            until_asleep(child);
        }
        set_bytes(id, 4000);
        if (kind < IS_SENDER)
            sends(id, 5, "five");
        wait_ok(child);
        if (kind >= IS_SENDER)
            takes(id, 5, kind == SENDS ? 3 : 3000, 1);
        set_bytes(id, FULL);
        nobody_sleeps();
    }
    // A handler for the signal to go on is one, though.
    for (int kind = 0; kind < KINDS; kind++) {
        pid_t child = asleep_somehow(kind, SIGCONT, notes, SA_RESTART, EINTR);
        wait_stopped(child);
        CHECK(kill(child, SIGCONT) == 0);
        wait_ok(child);
        nobody_sleeps();
    }
    queue_gone(id);
}

// Whether a stopped process still waits is not the same everywhere (docs/limitations.md); what it gets
// when it goes on is what there is.
static void stopped_processes_lose_nothing(char **args)
{
    (void)args;
    prepare();
    for (int n = 0; n < 20; n++) {
        pid_t child = fork();
        if (child == 0) {
            SAME(take(id, 20, 5, 0), 4);
            _exit(0);
        }
        until_asleep(child);
        wait_stopped(child);
        set_bytes(id, 4000);
        sends(id, 5, "five");
        int taken = n % 2 ? -1 : (int)take(id, ROOM, 5, NOWAIT);
        CHECK(kill(child, SIGCONT) == 0);
        if (taken == 4)
            sends(id, 5, "more");
        wait_ok(child);
        set_bytes(id, FULL);
        nobody_sleeps();
        // A sender.
        child = sender(id, 5, 3, 1, 0);
        wait_stopped(child);
        set_bytes(id, 4000);
        CHECK(kill(child, SIGCONT) == 0);
        wait_ok(child);
        takes(id, 5, 3, 1);
        set_bytes(id, FULL);
        nobody_sleeps();
    }
    // The queue may go as well: gone while asleep, or not there when the call begins anew.
    for (int kind = 0; kind < KINDS; kind++) {
        pid_t child = fork();
        if (child == 0) {
            SAME(sleep_somehow(kind), -1);
            CHECK(errno == EIDRM || errno == EINVAL);
            _exit(0);
        }
        until_asleep(child);
        wait_stopped(child);
        queue_gone(id);
        CHECK(kill(child, SIGCONT) == 0);
        wait_ok(child);
        prepare();
    }
    queue_gone(id);
}

static void ignored_signals_do_not(char **args)
{
    const int ignored[] = {SIGWINCH, SIGURG, SIGUSR1, SIGCONT, SIGCHLD, SIGRTMIN, SIGUSR2};
    (void)args;
    prepare();
    for (int kind = 0; kind < KINDS; kind++) {
        pid_t child = fork();
        if (child == 0) {
            sigset_t blocked;
            sigemptyset(&blocked);
            sigaddset(&blocked, SIGUSR2);
            signal(SIGUSR1, SIG_IGN);
            signal(SIGRTMIN, SIG_IGN);
            handle(SIGUSR2, notes, 0);
            CHECK(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
            SAME(sleep_somehow(kind), kind < IS_SENDER ? 4 : 0);
            SAME(caught, 0);
            CHECK(sigprocmask(SIG_UNBLOCK, &blocked, NULL) == 0);
            SAME(caught, SIGUSR2);
            _exit(0);
        }
        until_asleep(child);
        for (size_t n = 0; n < sizeof ignored / sizeof ignored[0]; n++) {
            CHECK(kill(child, ignored[n]) == 0);
            until_asleep(child);
        }
        set_bytes(id, 4000);
        if (kind < IS_SENDER)
            sends(id, 5, "five");
        wait_ok(child);
        if (kind >= IS_SENDER)
            takes(id, 5, kind == SENDS ? 3 : 3000, 1);
        set_bytes(id, FULL);
        nobody_sleeps();
    }
    queue_gone(id);
}

static sigjmp_buf away;

static void jumps(int signal)
{
    siglongjmp(away, signal);
}

static void jumping_out_ends_it(char **args)
{
    (void)args;
    prepare();
    for (int n = 0; n < 4 * KINDS; n++) {
        static struct gate up, down;
        int kind = n % KINDS;
        up = gate_new();
        down = gate_new();
        pid_t child = fork();
        if (child == 0) {
            handle(SIGUSR1, jumps, n < 2 * KINDS ? 0 : SA_RESTART);
            if (sigsetjmp(away, 1) == 0) {
                sleep_somehow(kind);
                CHECK(!"it came back");
            }
            nobody_sleeps();
            gate_open(&up);
            gate_pass(&down);
            // And it can sleep again, as if nothing had been.
            NOTHING(id, 5, 0);
            SAME(sleep_somehow(kind), kind < IS_SENDER ? 4 : 0);
            _exit(0);
        }
        until_asleep(child);
        CHECK(kill(child, SIGUSR1) == 0);
        gate_pass(&up);
        nobody_sleeps();
        gate_open(&down);
        until_asleep(child);
        set_bytes(id, 4000);
        if (kind < IS_SENDER)
            sends(id, 5, "five");
        wait_ok(child);
        if (kind >= IS_SENDER)
            takes(id, 5, kind == SENDS ? 3 : 3000, 1);
        set_bytes(id, FULL);
        nobody_sleeps();
        for (int side = 0; side < 2; side++) {
            close(up.fd[side]);
            close(down.fd[side]);
        }
    }
    // Again and again in one process: nothing runs out.
    pid_t parent = getpid(), pokes = fork();
    if (pokes == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            until_asleep(parent);
            kill(parent, SIGUSR1);
            usleep(20);
        }
    }
    static volatile int n;
    handle(SIGUSR1, jumps, 0);
    for (n = 0; n < 6000; n++)
        if (sigsetjmp(away, 1) == 0) {
            sleep_somehow(n % KINDS);
            CHECK(!"it came back");
        }
    signal(SIGUSR1, SIG_IGN);
    wait_killed(pokes);
    nobody_sleeps();
    queue_gone(id);
}

static volatile sig_atomic_t in_handler;
static struct gate told;

static void uses_the_queue(int signal)
{
    int before = errno;
    caught = signal;
    // What was interrupted waits no more.
    set_bytes(id, 4000);
    HOLDS(id, 1, FULL);
    sends(id, 5, "five");
    HOLDS(id, 2, FULL + 4);
    RECEIVES(id, 5, 0, 5, "five");
    NOTHING(id, 5, 0);
    in_handler = 1;
    gate_open(&told);
    // It may sleep itself.
    SAME(take(id, 20, 6, 0), 3);
    in_handler = 0;
    set_bytes(id, FULL);
    errno = before;
}

static void handlers_use_the_same_queue(char **args)
{
    (void)args;
    prepare();
    told = gate_new();
    for (int n = 0; n < 4 * KINDS; n++) {
        pid_t child = fork();
        if (child == 0) {
            handle(SIGUSR1, uses_the_queue, n % 8 < 4 ? SA_RESTART : 0);
            FAILS(EINTR, sleep_somehow(n % KINDS));
            SAME(caught, SIGUSR1);
            SAME(in_handler, 0);
            nobody_sleeps();
            _exit(0);
        }
        until_asleep(child);
        CHECK(kill(child, SIGUSR1) == 0);
        gate_pass(&told);
        // It is given to who waits in the handler, whenever that begins.
        sends(id, 6, "six");
        wait_ok(child);
        nobody_sleeps();
    }
    queue_gone(id);
}

static void interrupted_within(int signal)
{
    caught++;
    if (signal == SIGUSR1)
        FAILS(EINTR, take(id, 20, 6, 0));
}

static void handlers_are_interrupted_too(char **args)
{
    (void)args;
    prepare();
    for (int kind = 0; kind < KINDS; kind++) {
        pid_t child = fork();
        if (child == 0) {
            handle(SIGUSR1, interrupted_within, 0);
            handle(SIGUSR2, interrupted_within, SA_RESTART);
            FAILS(EINTR, sleep_somehow(kind));
            SAME(caught, 2);
            nobody_sleeps();
            _exit(0);
        }
        until_asleep(child);
        CHECK(kill(child, SIGUSR1) == 0);
        // Blocked while the handler runs, which is seen to sleep.
        for (;;) {
            char path[64], line[256];
            int runs = 0;
            snprintf(path, sizeof path, "/proc/%d/status", child);
            FILE *file = fopen(path, "re");
            CHECK(file != NULL);
            while (fgets(line, sizeof line, file) != NULL) {
                unsigned long mask;
                if (sscanf(line, "SigBlk: %lx", &mask) == 1)
                    runs = mask >> (SIGUSR1 - 1) & 1;
            }
            fclose(file);
            if (runs)
                break;
            sched_yield();
        }
        until_asleep(child);
        CHECK(kill(child, SIGUSR2) == 0);
        wait_ok(child);
        nobody_sleeps();
    }
    queue_gone(id);
}

struct thread {
    pthread_t thread;
    _Atomic pid_t number;
    int kind, error;
};

static void *sleeps(void *data)
{
    struct thread *me = data;
    me->number = (pid_t)syscall(SYS_gettid);
    errno = 0;
    if (sleep_somehow(me->kind) < 0)
        me->error = errno;
    return NULL;
}

static void only_the_thread_that_it_is_for(char **args)
{
    (void)args;
    static const int kinds[4] = {TYPE, TYPE, SENDS, SENDS_LARGE};
    prepare();
    handle(SIGUSR1, notes, SA_RESTART);
    struct thread threads[4] = {0};
    for (int n = 0; n < 4; n++) {
        threads[n].kind = kinds[n];
        CHECK(pthread_create(&threads[n].thread, NULL, sleeps, &threads[n]) == 0);
        while (threads[n].number == 0)
            sched_yield();
        until_thread_asleep(getpid(), threads[n].number);
    }
    for (int n = 0; n < 4; n += 2) {
        CHECK(pthread_kill(threads[n].thread, SIGUSR1) == 0);
        CHECK(pthread_join(threads[n].thread, NULL) == 0);
        SAME(threads[n].error, EINTR);
    }
    for (int n = 1; n < 4; n += 2)
        until_thread_asleep(getpid(), threads[n].number);
    // The sender that is left gives the receiver that is left what it waits for.
    set_bytes(id, 4000);
    CHECK(pthread_join(threads[3].thread, NULL) == 0);
    SAME(threads[3].error, 0);
    CHECK(pthread_join(threads[1].thread, NULL) == 0);
    // It had room for 20 bytes.
    SAME(threads[1].error, E2BIG);
    takes(id, 5, 3000, 1);
    queue_gone(id);
}

// A signal without a handler ends the sleeper, as any other process.
static void fatal_signals_end_it(char **args)
{
    const int *fatal = fatal_signals();
    (void)args;
    prepare();
    for (int n = 0; n < 2 * KINDS; n++) {
        pid_t child = asleep_somehow(n % KINDS, 0, NULL, 0, 0);
        int status = 0;
        CHECK(kill(child, fatal[n % 6]) == 0);
        SAME(waitpid(child, &status, 0), child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == fatal[n % 6]);
        nobody_sleeps();
    }
    queue_gone(id);
}

static void alarms(char **args)
{
    (void)args;
    prepare();
    handle(SIGALRM, notes, SA_RESTART);
    // The usual way to give up after a time.
    // Again and again: on a machine under load the first may come before the call.
    struct itimerval soon = {{0, 10000}, {0, 10000}}, never = {{0, 0}, {0, 0}};
    for (int n = 0; n < 20; n++) {
        caught = 0;
        CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        FAILS(EINTR, sleep_somehow(n % KINDS));
        SAME(caught, SIGALRM);
        CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    }
    nobody_sleeps();
    queue_gone(id);
}

static volatile long given;

static void gives(int signal)
{
    int before = errno;
    (void)signal;
    if (put_bytes(id, 3, given % 2 ? 5 : 600, (unsigned)given, NOWAIT) == 0) {
        // Of its own messages the first.
        SAME(take(id, ROOM, 3, NOWAIT), given % 2 ? 5 : 600);
        given++;
    } else {
        SAME(errno, EAGAIN);
    }
    errno = before;
}

// Handlers that use the queue, at any moment of what the program does with it.
static void handlers_operate_at_any_moment(char **args)
{
    (void)args;
    id = queue();
    handle(SIGALRM, gives, SA_RESTART);
    struct itimerval often = {{0, 150}, {0, 150}}, never = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    struct message message;
    for (unsigned n = 0; given < 3000 || n < 20000; n++) {
        size_t size = n % 3 ? n % 70 : n % 4000;
        message.type = 1;
        fill(message.text, size, n);
        // Interrupted or not: a call that failed has done nothing.
        while (msgsnd(id, &message, size, 0) != 0)
            SAME(errno, EINTR);
        ssize_t got;
        while ((got = msgrcv(id, &message, ROOM, 1, n % 2 ? NOWAIT : 0)) < 0)
            SAME(errno, EINTR);
        SAME(got, size);
        CHECK(is_filled(message.text, size, n));
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    HOLDS(id, 0, 0);
    queue_gone(id);
}

SCENARIOS({"handlers_interrupt", handlers_interrupt},
          {"stopping_does_not_interrupt", stopping_does_not_interrupt},
          {"stopped_processes_lose_nothing", stopped_processes_lose_nothing},
          {"ignored_signals_do_not", ignored_signals_do_not},
          {"jumping_out_ends_it", jumping_out_ends_it},
          {"handlers_use_the_same_queue", handlers_use_the_same_queue},
          {"handlers_are_interrupted_too", handlers_are_interrupted_too},
          {"only_the_thread_that_it_is_for", only_the_thread_that_it_is_for},
          {"fatal_signals_end_it", fatal_signals_end_it},
          {"alarms", alarms},
          {"handlers_operate_at_any_moment", handlers_operate_at_any_moment})
