// SPDX-License-Identifier: MIT OR Apache-2.0
// Signals that come to who sleeps in semop.
#include "sem.h"
#include <setjmp.h>
#include <sys/time.h>

static volatile sig_atomic_t caught;
static int set;

static void notes(int signal)
{
    caught = signal;
}

enum { PLAIN, TIMED, ZERO, MANY_OPS, WITH_UNDO, KINDS };

// Sleeps in semop in some way.
static int sleep_somehow(int kind)
{
    static const struct timespec long_time = {100000, 0};
    switch (kind) {
    case PLAIN:
        return op(set, 0, -1, 0);
    case TIMED:
        return semtimedop(set, OPS({0, -1, 0}), &long_time);
    case ZERO:
        return op(set, 1, 0, 0);
    case MANY_OPS:
        return semop(set, OPS({1, -1, 0}, {0, -1, UNDO}));
    default:
        return op(set, 0, -1, UNDO);
    }
}

static void until_sleeps(pid_t child, int kind)
{
    until_count(set, kind == ZERO, kind == ZERO ? GETZCNT : GETNCNT, 1);
    until_state(child, 'S');
}

static void nobody_sleeps(void)
{
    SAME(semctl(set, 0, GETNCNT), 0);
    SAME(semctl(set, 1, GETZCNT), 0);
    SAME(value(set, 0), 0);
    SAME(value(set, 1), 1);
}

static void handlers_interrupt(char **args)
{
    static const int flags[] = {0, SA_RESTART, SA_SIGINFO, SA_RESTART | SA_NODEFER, SA_RESETHAND};
    (void)args;
    set = set_of(2);
    put(set, 1, 1);
    for (int n = 0; n < 5 * KINDS; n++) {
        int kind = n % KINDS;
        pid_t child = fork();
        if (child == 0) {
            handle(SIGUSR1, notes, flags[n / KINDS]);
            FAILS(EINTR, sleep_somehow(kind));
            SAME(caught, SIGUSR1);
            // It is over, and not only for this process.
            nobody_sleeps();
            _exit(0);
        }
        until_sleeps(child, kind);
        CHECK(kill(child, SIGUSR1) == 0);
        wait_ok(child);
        nobody_sleeps();
    }
    // By signal(), which has SA_RESTART, and by the other way that there is.
    struct gate up = gate_new(), down = gate_new();
    pid_t child = fork();
    if (child == 0) {
        CHECK(signal(SIGUSR1, notes) == SIG_DFL);
        FAILS(EINTR, sleep_somehow(PLAIN));
        gate_open(&up);
        gate_pass(&down);
        CHECK(sysv_signal(SIGUSR1, notes) == notes);
        FAILS(EINTR, sleep_somehow(PLAIN));
        gate_open(&up);
        _exit(0);
    }
    for (int n = 0; n < 2; n++) {
        until_sleeps(child, PLAIN);
        CHECK(kill(child, SIGUSR1) == 0);
        gate_pass(&up);
        SAME(semctl(set, 0, GETNCNT), 0);
        gate_open(&down);
    }
    wait_ok(child);
    set_gone(set);
}

// SIGSTOP and SIGCONT end it too, though no handler has run.
static void stopping_interrupts(char **args)
{
    (void)args;
    set = set_of(2);
    put(set, 1, 1);
    for (int n = 0; n < 2 * KINDS; n++) {
        int kind = n % KINDS;
        pid_t child = fork();
        if (child == 0) {
            if (n >= KINDS)
                signal(SIGCONT, SIG_IGN);
            FAILS(EINTR, sleep_somehow(kind));
            _exit(0);
        }
        until_sleeps(child, kind);
        int status = 0;
        CHECK(kill(child, SIGSTOP) == 0);
        SAME(waitpid(child, &status, WUNTRACED), child);
        CHECK(WIFSTOPPED(status));
        CHECK(kill(child, SIGCONT) == 0);
        wait_ok(child);
        nobody_sleeps();
    }
    set_gone(set);
}

// Whether a stopped process still waits is not the same everywhere (docs/limitations.md); what it is
// told when it goes on is what has happened.
static void stopped_processes_get_all_or_nothing(char **args)
{
    (void)args;
    set = set_of(2);
    for (int n = 0; n < 20; n++) {
        pid_t child = fork();
        if (child == 0) {
            errno = 0;
            int got = op(set, 0, -1, 0);
            CHECK(got == 0 || (got == -1 && errno == EINTR));
            SAME(value(set, 0), got == 0 ? 0 : 1);
            _exit(0);
        }
        until_sleeps(child, PLAIN);
        CHECK(kill(child, SIGSTOP) == 0);
        SAME(waitpid(child, NULL, WUNTRACED), child);
        does(set, 0, 1, 0);
        CHECK(kill(child, SIGCONT) == 0);
        wait_ok(child);
        put(set, 0, 0);
    }
    // The set may go as well.
    pid_t child = fork();
    if (child == 0) {
        errno = 0;
        SAME(op(set, 0, -1, 0), -1);
        CHECK(errno == EIDRM || errno == EINTR);
        _exit(0);
    }
    until_sleeps(child, PLAIN);
    CHECK(kill(child, SIGSTOP) == 0);
    SAME(waitpid(child, NULL, WUNTRACED), child);
    set_gone(set);
    CHECK(kill(child, SIGCONT) == 0);
    wait_ok(child);
}

static void ignored_signals_do_not(char **args)
{
    const int ignored[] = {SIGWINCH, SIGURG, SIGUSR1, SIGCONT, SIGCHLD, SIGRTMIN, SIGUSR2};
    (void)args;
    set = set_of(2);
    put(set, 1, 1);
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
            CHECK(sleep_somehow(kind) == 0);
            SAME(caught, 0);
            CHECK(sigprocmask(SIG_UNBLOCK, &blocked, NULL) == 0);
            SAME(caught, SIGUSR2);
            _exit(0);
        }
        until_sleeps(child, kind);
        for (size_t n = 0; n < sizeof ignored / sizeof ignored[0]; n++) {
            CHECK(kill(child, ignored[n]) == 0);
            until_sleeps(child, kind);
        }
        if (kind == ZERO) {
            put(set, 1, 0);
            put(set, 1, 1);
        } else {
            does(set, 0, 1, 0);
        }
        wait_ok(child);
        put(set, 0, 0);
        put(set, 1, 1);
    }
    set_gone(set);
}

static sigjmp_buf away;

static void jumps(int signal)
{
    siglongjmp(away, signal);
}

static void jumping_out_ends_it(char **args)
{
    (void)args;
    set = set_of(2);
    put(set, 1, 1);
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
            FAILS(EAGAIN, op(set, 0, -1, NOWAIT));
            does(set, 0, -1, 0);
            _exit(0);
        }
        until_sleeps(child, kind);
        CHECK(kill(child, SIGUSR1) == 0);
        gate_pass(&up);
        nobody_sleeps();
        // Nobody takes this.
        does(set, 0, 1, 0);
        SAME(value(set, 0), 1);
        does(set, 0, -1, NOWAIT);
        gate_open(&down);
        until_count(set, 0, GETNCNT, 1);
        does(set, 0, 1, 0);
        wait_ok(child);
        for (int side = 0; side < 2; side++) {
            close(up.fd[side]);
            close(down.fd[side]);
        }
    }
    set_gone(set);
}

static volatile sig_atomic_t in_handler;

static void uses_the_set(int signal)
{
    int before = errno;
    caught = signal;
    // What was interrupted waits no more.
    SAME(semctl(set, 0, GETNCNT), 0);
    does(set, 1, 1, 0);
    FAILS(EAGAIN, op(set, 0, -1, NOWAIT));
    FAILS(EAGAIN, semtimedop(set, OPS({0, -1, UNDO}), &(struct timespec){0, 2000000}));
    SAME(value(set, 1), 1);
    in_handler = 1;
    // It may sleep itself.
    does(set, 2, -1, 0);
    does(set, 1, -1, UNDO);
    in_handler = 0;
    errno = before;
}

static void handlers_use_the_same_set(char **args)
{
    (void)args;
    set = set_of(3);
    for (int n = 0; n < 20; n++) {
        pid_t child = fork();
        if (child == 0) {
            handle(SIGUSR1, uses_the_set, n % 2 ? SA_RESTART : 0);
            FAILS(EINTR, op(set, 0, -1, n % 4 < 2 ? 0 : UNDO));
            SAME(caught, SIGUSR1);
            SAME(in_handler, 0);
            _exit(0);
        }
        until_sleeps(child, PLAIN);
        CHECK(kill(child, SIGUSR1) == 0);
        until_count(set, 2, GETNCNT, 1);
        SAME(semctl(set, 0, GETNCNT), 0);
        does(set, 2, 1, 0);
        wait_ok(child);
        put(set, 1, 0);
    }
    set_gone(set);
}

static void interrupted_within(int signal)
{
    caught++;
    if (signal == SIGUSR1)
        FAILS(EINTR, op(set, 1, -1, 0));
}

static void handlers_are_interrupted_too(char **args)
{
    (void)args;
    set = set_of(2);
    pid_t child = fork();
    if (child == 0) {
        handle(SIGUSR1, interrupted_within, 0);
        handle(SIGUSR2, interrupted_within, SA_RESTART);
        FAILS(EINTR, op(set, 0, -1, 0));
        SAME(caught, 2);
        _exit(0);
    }
    until_sleeps(child, PLAIN);
    CHECK(kill(child, SIGUSR1) == 0);
    until_count(set, 1, GETNCNT, 1);
    CHECK(kill(child, SIGUSR2) == 0);
    wait_ok(child);
    set_gone(set);
}

struct thread {
    pthread_t thread;
    int sem, error;
};

static void *sleeps(void *data)
{
    struct thread *me = data;
    errno = 0;
    if (op(set, me->sem, -1, 0) != 0)
        me->error = errno;
    return NULL;
}

static void only_the_thread_that_it_is_for(char **args)
{
    (void)args;
    set = set_of(4);
    handle(SIGUSR1, notes, SA_RESTART);
    struct thread threads[4] = {0};
    for (int n = 0; n < 4; n++) {
        threads[n].sem = n;
        CHECK(pthread_create(&threads[n].thread, NULL, sleeps, &threads[n]) == 0);
        until_count(set, n, GETNCNT, 1);
    }
    for (int n = 0; n < 4; n += 2) {
        CHECK(pthread_kill(threads[n].thread, SIGUSR1) == 0);
        CHECK(pthread_join(threads[n].thread, NULL) == 0);
        SAME(threads[n].error, EINTR);
        SAME(semctl(set, n, GETNCNT), 0);
    }
    for (int n = 1; n < 4; n += 2) {
        SAME(semctl(set, n, GETNCNT), 1);
        does(set, n, 1, 0);
        CHECK(pthread_join(threads[n].thread, NULL) == 0);
        SAME(threads[n].error, 0);
    }
    set_gone(set);
}

static void *cancelled(void *unused)
{
    (void)unused;
    // No cancellation point: it goes on, and is cancelled at the next one.
    does(set, 0, -1, 0);
    does(set, 1, 1, 0);
    pause();
    return NULL;
}

static void semop_is_no_cancellation_point(char **args)
{
    (void)args;
    set = set_of(2);
    pthread_t thread;
    void *result;
    CHECK(pthread_create(&thread, NULL, cancelled, NULL) == 0);
    until_count(set, 0, GETNCNT, 1);
    CHECK(pthread_cancel(thread) == 0);
    SAME(semctl(set, 0, GETNCNT), 1);
    does(set, 0, 1, 0);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED);
    SAME(value(set, 1), 1);
    set_gone(set);
}

// A signal without a handler ends the sleeper, as any other process.
static void fatal_signals_end_it(char **args)
{
    const int *fatal = fatal_signals();
    (void)args;
    set = set_of(2);
    put(set, 1, 1);
    for (int n = 0; n < 6; n++) {
        pid_t child = fork();
        if (child == 0) {
            sleep_somehow(n % KINDS);
            _exit(1);
        }
        until_sleeps(child, n % KINDS);
        int status = 0;
        CHECK(kill(child, fatal[n]) == 0);
        SAME(waitpid(child, &status, 0), child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == fatal[n]);
        nobody_sleeps();
    }
    set_gone(set);
}

static void alarms(char **args)
{
    (void)args;
    set = set_of(2);
    handle(SIGALRM, notes, SA_RESTART);
    // The usual way to give up after a time.
    // Again and again: on a machine under load the first may come before the call.
    struct itimerval soon = {{0, 10000}, {0, 10000}}, never = {{0, 0}, {0, 0}};
    for (int n = 0; n < 20; n++) {
        caught = 0;
        CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        FAILS(EINTR, op(set, 0, -1, 0));
        SAME(caught, SIGALRM);
        CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    }
    set_gone(set);
}

static volatile long given;

static void gives(int signal)
{
    int before = errno;
    (void)signal;
    does(set, 0, 1, UNDO);
    CHECK(semop(set, OPS({0, 1, UNDO}, {1, 1, 0}, {2, 0, NOWAIT})) == 0 || errno == EAGAIN);
    CHECK(semctl(set, 1, GETVAL) >= 0);
    given++;
    errno = before;
}

// Handlers that use the set, at any moment of what the program does with it.
static void handlers_operate_at_any_moment(char **args)
{
    (void)args;
    set = set_of(3);
    handle(SIGALRM, gives, SA_RESTART);
    struct itimerval often = {{0, 150}, {0, 150}}, never = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (long n = 0; given < 3000 || n < 20000; n++) {
        // Interrupted or not: a call that failed has done nothing.
        while (op(set, 2, 1, n % 2 ? UNDO : 0) != 0)
            SAME(errno, EINTR);
        while (semop(set, OPS({2, -1, n % 2 ? UNDO : 0}, {1, 0, 0})) != 0) {
            SAME(errno, EINTR);
            while (op(set, 1, -1, NOWAIT) == 0)
                ;
        }
        while (op(set, 0, -1, UNDO | NOWAIT) == 0)
            ;
        SAME(errno, EAGAIN);
        while (op(set, 1, -1, NOWAIT) == 0)
            ;
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    for (int sem = 0; sem < 2; sem++) {
        while (op(set, sem, -1, NOWAIT | (sem ? 0 : UNDO)) == 0)
            ;
        SAME(value(set, sem), 0);
    }
    SAME(value(set, 2), 0);
    SAME(semctl(set, 0, GETNCNT), 0);
    set_gone(set);
}

SCENARIOS({"handlers_operate_at_any_moment", handlers_operate_at_any_moment},
          {"handlers_interrupt", handlers_interrupt},
          {"stopping_interrupts", stopping_interrupts},
          {"stopped_processes_get_all_or_nothing", stopped_processes_get_all_or_nothing},
          {"ignored_signals_do_not", ignored_signals_do_not},
          {"jumping_out_ends_it", jumping_out_ends_it},
          {"handlers_use_the_same_set", handlers_use_the_same_set},
          {"handlers_are_interrupted_too", handlers_are_interrupted_too},
          {"only_the_thread_that_it_is_for", only_the_thread_that_it_is_for},
          {"semop_is_no_cancellation_point", semop_is_no_cancellation_point},
          {"fatal_signals_end_it", fatal_signals_end_it},
          {"alarms", alarms})
