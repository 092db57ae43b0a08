// SPDX-License-Identifier: MIT OR Apache-2.0
// Sleeping in semop: what wakes whom, in which order, and what becomes of who does not wake.
#include "sem.h"

static void blocks_and_wakes(char **args)
{
    (void)args;
    int id = set_of(2);
    pid_t child = asleep_in(id, 1, -3, 0, 0, NULL, 0);
    until_state(child, 'S');
    does(id, 1, 2, 0);
    // Not enough yet, and it is counted still.
    SAME(semctl(id, 1, GETNCNT), 1);
    SAME(semctl(id, 0, GETNCNT), 0);
    SAME(value(id, 1), 2);
    does(id, 0, 5, 0);
    does(id, 1, 2, 0);
    // The operations are done when the call that allowed them is.
    SAME(value(id, 1), 1);
    SAME(semctl(id, 1, GETNCNT), 0);
    SAME(semctl(id, 1, GETPID), child);
    wait_ok(child);
    child = asleep_in(id, 1, 0, 0, 0, NULL, 0);
    SAME(semctl(id, 1, GETZCNT), 1);
    SAME(semctl(id, 1, GETNCNT), 0);
    does(id, 1, -1, 0);
    SAME(semctl(id, 1, GETZCNT), 0);
    SAME(semctl(id, 1, GETPID), child);
    wait_ok(child);
    set_gone(id);
}

// What was given to a sleeper cannot be taken by who comes later.
static void given_is_given(char **args)
{
    (void)args;
    int id = set_of(1);
    for (int n = 0; n < 200; n++) {
        pid_t child = asleep_in(id, 0, -1, 0, 0, NULL, 0);
        if (n % 3 == 0)
            until_state(child, 'S');
        does(id, 0, 1, 0);
        FAILS(EAGAIN, op(id, 0, -1, NOWAIT));
        SAME(semctl(id, 0, GETNCNT), 0);
        wait_ok(child);
        SAME(value(id, 0), 0);
    }
    set_gone(id);
}

static void first_come_first_served(char **args)
{
    (void)args;
    enum { MANY = 9 };
    int id = set_of(1);
    struct gate told = gate_new();
    pid_t children[MANY];
    for (int n = 0; n < MANY; n++)
        children[n] = asleep_in(id, 0, -1, 0, 0, &told, (char)('a' + n));
    for (int n = 0; n < MANY; n++) {
        SAME(semctl(id, 0, GETNCNT), MANY - n);
        does(id, 0, 1, 0);
        // One and no more.
        SAME(semctl(id, 0, GETNCNT), MANY - n - 1);
        SAME(value(id, 0), 0);
        SAME(told_by(&told), 'a' + n);
        wait_ok(children[n]);
    }
    // Several at once take theirs in order; who needs more than is left is passed over.
    children[0] = asleep_in(id, 0, -2, 0, 0, &told, 'a');
    children[1] = asleep_in(id, 0, -3, 0, 0, &told, 'b');
    children[2] = asleep_in(id, 0, -1, 0, 0, &told, 'c');
    children[3] = asleep_in(id, 0, -1, 0, 0, &told, 'd');
    does(id, 0, 1, 0);
    SAME(told_by(&told), 'c');
    does(id, 0, 3, 0);
    wait_ok(children[0]);
    wait_ok(children[3]);
    SAME(semctl(id, 0, GETNCNT), 1);
    SAME(value(id, 0), 0);
    does(id, 0, 4, 0);
    SAME(value(id, 0), 1);
    wait_ok(children[1]);
    wait_ok(children[2]);
    set_gone(id);
}

// Sleepers with one operation, and with several, stand in one order.
static void simple_and_complex(char **args)
{
    (void)args;
    int id = set_of(3);
    struct gate told = gate_new();
    pid_t simple = asleep_in(id, 0, -1, 0, 0, &told, 's');
    pid_t both = sleeper(id, OPS({0, -1, 0}, {1, -1, 0}), 0, &told, 'b');
    until_count(id, 0, GETNCNT, 2);
    pid_t last = asleep_in(id, 0, -1, 0, 0, &told, 'l');
    // It is counted where it waits and nowhere else.
    SAME(semctl(id, 1, GETNCNT), 0);
    does(id, 0, 1, 0);
    SAME(told_by(&told), 's');
    wait_ok(simple);
    // The complex one is next, but cannot; the last can.
    does(id, 0, 1, 0);
    SAME(told_by(&told), 'l');
    wait_ok(last);
    // Now it waits for the other semaphore.
    last = asleep_in(id, 0, -2, 0, 0, &told, 'l');
    does(id, 0, 1, 0);
    SAME(semctl(id, 0, GETNCNT), 1);
    SAME(semctl(id, 1, GETNCNT), 1);
    does(id, 1, 1, 0);
    SAME(told_by(&told), 'b');
    wait_ok(both);
    SAME(value(id, 0), 0);
    SAME(value(id, 1), 0);
    // First of all is the complex one, if it came first.
    both = sleeper(id, OPS({0, -2, 0}, {1, 1, 0}, {2, 0, 0}), 0, &told, 'b');
    until_count(id, 0, GETNCNT, 2);
    simple = asleep_in(id, 1, -1, 0, 0, &told, 's');
    does(id, 0, 2, 0);
    SAME(told_by(&told), 'l');
    wait_ok(last);
    does(id, 0, 2, 0);
    // What it did let the other one go on.
    wait_ok(both);
    wait_ok(simple);
    for (int sem = 0; sem < 3; sem++)
        SAME(value(id, sem), 0);
    set_gone(id);
}

static void zero_before_decrement(char **args)
{
    (void)args;
    int id = set_of(3);
    does(id, 1, 1, 0);
    // Both become possible at once; the one that came first would keep the other from it.
    pid_t changes = sleeper(id, OPS({0, -1, 0}, {1, 1, 0}), 0, NULL, 0);
    until_count(id, 0, GETNCNT, 1);
    pid_t zero = asleep_in(id, 1, 0, 0, 0, NULL, 0);
    CHECK(semop(id, OPS({1, -1, 0}, {0, 1, 0})) == 0);
    wait_ok(zero);
    wait_ok(changes);
    SAME(value(id, 1), 1);
    // A chain: each one's operation makes the next possible.
    put(id, 1, 0);
    pid_t chain[3];
    chain[0] = sleeper(id, OPS({0, -1, 0}, {1, 1, 0}), 0, NULL, 0);
    chain[1] = sleeper(id, OPS({1, -1, 0}, {2, 1, 0}), 0, NULL, 0);
    chain[2] = asleep_in(id, 2, -1, 0, 0, NULL, 0);
    until_count(id, 0, GETNCNT, 1);
    until_count(id, 1, GETNCNT, 1);
    does(id, 0, 1, 0);
    SAME(semctl(id, 2, GETPID), chain[2]);
    for (int n = 0; n < 3; n++) {
        wait_ok(chain[n]);
        SAME(value(id, n), 0);
    }
    // All that wait for zero go together.
    does(id, 0, 1, 0);
    for (int n = 0; n < 3; n++)
        chain[n] = asleep_in(id, 0, 0, 0, 0, NULL, 0);
    does(id, 0, -1, 0);
    SAME(semctl(id, 0, GETZCNT), 0);
    for (int n = 0; n < 3; n++)
        wait_ok(chain[n]);
    // Also when the zero was there only until another one was served.
    does(id, 0, 1, 0);
    zero = asleep_in(id, 0, 0, 0, 0, NULL, 0);
    changes = sleeper(id, OPS({0, -1, 0}, {0, 0, 0}, {0, 2, 0}, {1, -1, 0}), 0, NULL, 0);
    until_count(id, 1, GETNCNT, 1);
    does(id, 1, 1, 0);
    wait_ok(changes);
    SAME(value(id, 0), 2);
    SAME(semctl(id, 0, GETZCNT), 1);
    put(id, 0, 0);
    wait_ok(zero);
    set_gone(id);
}

// Who sleeps may fail instead, by what others did meanwhile.
static void sleepers_may_fail(char **args)
{
    (void)args;
    int id = set_of(3);
    put(id, 1, SEMVMX - 1);
    pid_t child = sleeper(id, OPS({0, -1, 0}, {1, 1, 0}), ERANGE, NULL, 0);
    until_count(id, 0, GETNCNT, 1);
    does(id, 1, 1, 0);
    does(id, 0, 1, 0);
    wait_ok(child);
    SAME(value(id, 0), 1);
    SAME(value(id, 1), SEMVMX);
    put(id, 0, 0);
    put(id, 1, 1);
    // The next operation that cannot be is one that would not wait.
    child = sleeper(id, OPS({0, -1, 0}, {1, -1, NOWAIT}), EAGAIN, NULL, 0);
    until_count(id, 0, GETNCNT, 1);
    does(id, 1, -1, 0);
    does(id, 0, 1, 0);
    wait_ok(child);
    SAME(value(id, 0), 1);
    SAME(semctl(id, 0, GETNCNT), 0);
    set_gone(id);
}

static void setting_wakes(char **args)
{
    (void)args;
    int id = set_of(3);
    struct gate told = gate_new();
    pid_t one = asleep_in(id, 0, -2, 0, 0, &told, 'a'), other = asleep_in(id, 0, -2, 0, 0, &told, 'b');
    put(id, 0, 3);
    SAME(told_by(&told), 'a');
    SAME(value(id, 0), 1);
    SAME(semctl(id, 0, GETPID), one);
    put(id, 0, 2);
    SAME(told_by(&told), 'b');
    wait_ok(one);
    wait_ok(other);
    one = asleep_in(id, 0, -1, 0, 0, &told, 'a');
    other = sleeper(id, OPS({1, -2, 0}, {2, -3, 0}), 0, &told, 'b');
    until_count(id, 1, GETNCNT, 1);
    pid_t third = fork();
    if (third == 0) {
        does(id, 2, 1, 0);
        does(id, 2, 0, 0);
        _exit(0);
    }
    until_count(id, 2, GETZCNT, 1);
    unsigned short all[3] = {1, 2, 3};
    CHECK(semctl(id, 0, SETALL, (union semun){.array = all}) == 0);
    wait_ok(one);
    wait_ok(other);
    wait_ok(third);
    CHECK(semctl(id, 0, GETALL, (union semun){.array = all}) == 0);
    CHECK(all[0] == 0 && all[1] == 0 && all[2] == 0);
    set_gone(id);
}

static void removal_wakes(char **args)
{
    (void)args;
    int id = set_of(3);
    pid_t children[6];
    children[0] = asleep_in(id, 0, -1, 0, EIDRM, NULL, 0);
    children[1] = asleep_in(id, 0, -1, UNDO, EIDRM, NULL, 0);
    does(id, 1, 1, 0);
    children[2] = asleep_in(id, 1, 0, 0, EIDRM, NULL, 0);
    children[3] = sleeper(id, OPS({1, -1, UNDO}, {2, -1, 0}), EIDRM, NULL, 0);
    children[4] = sleeper(id, OPS({2, -2, 0}, {2, 0, 0}), EIDRM, NULL, 0);
    until_count(id, 2, GETNCNT, 2);
    children[5] = fork();
    if (children[5] == 0) {
        FAILS(EIDRM, semtimedop(id, OPS({0, -5, 0}), &(struct timespec){1000, 0}));
        _exit(0);
    }
    until_count(id, 0, GETNCNT, 3);
    set_gone(id);
    for (int n = 0; n < 6; n++)
        wait_ok(children[n]);
    FAILS(EINVAL, op(id, 0, 1, 0));
    // The key is free for a set in which nobody sleeps.
    id = set_of(1);
    SAME(semctl(id, 0, GETNCNT), 0);
    set_gone(id);
}

static long long nanoseconds(void)
{
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void timeouts(char **args)
{
    (void)args;
    int id = set_of(2);
    static const struct timespec bad[] = {{0, -1}, {0, 1000000000}, {-1, 0}, {-1, 5}, {5, 2000000000}};
    for (size_t n = 0; n < sizeof bad / sizeof bad[0]; n++) {
        FAILS(EINVAL, semtimedop(id, OPS({0, -1, 0}), &bad[n]));
        FAILS(EINVAL, semtimedop(id, OPS({0, -1, NOWAIT}), &bad[n]));
        // Even if nothing has to be waited for.
        FAILS(EINVAL, semtimedop(id, OPS({0, 1, 0}), &bad[n]));
        FAILS(EINVAL, semtimedop(id, OPS({9, 1, 0}), &bad[n]));
    }
    SAME(value(id, 0), 0);
    struct timespec *nowhere = (struct timespec *)-16L, none = {0, 0};
    FAILS(EFAULT, semtimedop(id, OPS({0, 1, 0}), nowhere));
    FAILS(EFAULT, semtimedop(-1, OPS({0, 1, 0}), nowhere));
    FAILS(EFAULT, semtimedop(id, NULL, 1, nowhere));
    FAILS(EFAULT, semtimedop(id, NULL, 0, nowhere));
    FAILS(EFAULT, semtimedop(id, NULL, 1, &none));
    SAME(value(id, 0), 0);
    FAILS(EAGAIN, semtimedop(id, OPS({0, -1, 0}), &none));
    FAILS(EAGAIN, semtimedop(id, OPS({0, 1, 0}, {1, -1, 0}), &none));
    CHECK(semtimedop(id, OPS({0, 1, 0}), &none) == 0);
    FAILS(EAGAIN, semtimedop(id, OPS({0, 0, 0}), &none));
    FAILS(EAGAIN, semtimedop(id, OPS({0, -1, 0}, {1, -1, 0}), &(struct timespec){0, 1}));
    for (int n = 0; n < 5; n++) {
        long long begun = nanoseconds(), wanted = 1000000LL * (1 + n * 20);
        FAILS(EAGAIN, semtimedop(id, OPS({1, -1, n % 2 ? UNDO : 0}), &(struct timespec){0, wanted}));
        CHECK(nanoseconds() - begun >= wanted);
        SAME(semctl(id, 1, GETNCNT), 0);
    }
    // Nothing of them is left.
    does(id, 1, 1, 0);
    SAME(value(id, 1), 1);
    // The longest times there are.
    static const struct timespec ages[] = {{INT64_MAX, 999999999}, {INT64_MAX / 1000000000, 0}, {1LL << 40, 0}};
    for (size_t n = 0; n < sizeof ages / sizeof ages[0]; n++) {
        pid_t child = fork();
        if (child == 0) {
            CHECK(semtimedop(id, OPS({1, -2, 0}), &ages[n]) == 0);
            _exit(0);
        }
        until_count(id, 1, GETNCNT, 1);
        until_state(child, 'S');
        SAME(semctl(id, 1, GETNCNT), 1);
        does(id, 1, 1, 0);
        wait_ok(child);
        does(id, 1, 1, 0);
    }
    set_gone(id);
}

// A sleeper that is killed is not counted and takes nothing, from the moment when its parent knows.
static void killed_sleepers(char **args)
{
    (void)args;
    int id = set_of(3);
    for (int n = 0; n < 100; n++) {
        pid_t child;
        if (n % 3 == 0) {
            child = asleep_in(id, 0, -1, n % 2 ? UNDO : 0, 0, NULL, 0);
        } else if (n % 3 == 1) {
            child = sleeper(id, OPS({1, 0, 0}, {0, -1, 0}), 0, NULL, 0);
            until_count(id, 0, GETNCNT, 1);
        } else {
            child = sleeper(id, OPS({0, -1, 0}), 0, NULL, 0);
        }
        wait_killed(child);
        if (n % 2)
            SAME(semctl(id, 0, GETNCNT), 0);
        does(id, 0, 1, 0);
        SAME(value(id, 0), 1);
        does(id, 0, -1, NOWAIT);
        SAME(semctl(id, 0, GETNCNT), 0);
    }
    // Of several, only the dead.
    struct gate told = gate_new();
    pid_t first = asleep_in(id, 0, -1, 0, 0, &told, 'a'), second = asleep_in(id, 0, -1, 0, 0, &told, 'b');
    pid_t third = asleep_in(id, 0, -1, 0, 0, &told, 'c');
    wait_killed(first);
    does(id, 0, 1, 0);
    SAME(told_by(&told), 'b');
    wait_ok(second);
    SAME(semctl(id, 0, GETNCNT), 1);
    wait_killed(third);
    SAME(semctl(id, 0, GETNCNT), 0);
    does(id, 1, 1, 0);
    first = asleep_in(id, 1, 0, 0, 0, NULL, 0);
    wait_killed(first);
    SAME(semctl(id, 1, GETZCNT), 0);
    set_gone(id);
}

// Blocked is asleep: no processor time.
static void sleepers_sleep(char **args)
{
    (void)args;
    int id = set_of(1);
    pid_t children[4];
    unsigned long before[4], after[4];
    for (int n = 0; n < 4; n++)
        children[n] = asleep_in(id, 0, -1, 0, 0, NULL, 0);
    for (int n = 0; n < 4; n++) {
        until_state(children[n], 'S');
        cpu_of(children[n], &before[n]);
    }
    nanosleep(&(struct timespec){1, 0}, NULL);
    for (int n = 0; n < 4; n++) {
        cpu_of(children[n], &after[n]);
        CHECK(after[n] - before[n] <= 1);
        until_state(children[n], 'S');
    }
    does(id, 0, 4, 0);
    for (int n = 0; n < 4; n++)
        wait_ok(children[n]);
    set_gone(id);
}

static void *takes_one(void *id)
{
    does(*(int *)id, 0, -1, 0);
    return NULL;
}

// No herd: a V for one does not even wake the others.
static void one_is_disturbed(char **args)
{
    (void)args;
    enum { MANY = 12 };
    int id = set_of(1);
    pid_t children[MANY];
    long before[MANY];
    for (int n = 0; n < MANY; n++)
        children[n] = asleep_in(id, 0, -1, 0, 0, NULL, 0);
    for (int n = 0; n < MANY; n++)
        until_state(children[n], 'S');
    // Long enough to have settled.
    nanosleep(&(struct timespec){0, 50000000}, NULL);
    time_t begun = time(NULL);
    for (int n = 0; n < MANY; n++)
        before[n] = switches_of(children[n]);
    long disturbed = 0;
    for (int n = 0; n < MANY - 1; n++) {
        does(id, 0, 1, 0);
        wait_ok(children[n]);
        for (int other = n + 1; other < MANY; other++) {
            disturbed += switches_of(children[other]) - before[other];
            before[other] = switches_of(children[other]);
        }
    }
    // A sleeper may look around by itself every two seconds; a herd would be 66 more.
    CHECK(disturbed <= MANY + MANY * (time(NULL) - begun));
    does(id, 0, 1, 0);
    wait_ok(children[MANY - 1]);
    set_gone(id);
}

// Threads that sleep while their process ends, becomes another program, or forks.
static void other_threads_end_it(char **args)
{
    (void)args;
    int id = set_of(1);
    for (int n = 0; n < 12; n++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t threads[3];
            for (int k = 0; k < 3; k++)
                CHECK(pthread_create(&threads[k], NULL, takes_one, &id) == 0);
            until_count(id, 0, GETNCNT, 3);
            if (n % 4 == 0)
                exit(0);
            if (n % 4 == 1)
                execl("/bin/true", "true", NULL);
            if (n % 4 == 2)
                kill(getpid(), SIGKILL);
            pid_t grandchild = fork();
            if (grandchild == 0) {
                SAME(semctl(id, 0, GETNCNT), 3);
                does(id, 0, 1, 0);
                SAME(semctl(id, 0, GETNCNT), 2);
                SAME(semctl(id, 0, GETPID), getppid());
                _exit(0);
            }
            wait_ok(grandchild);
            SAME(semctl(id, 0, GETNCNT), 2);
            _exit(0);
        }
        int status;
        SAME(waitpid(child, &status, 0), child);
        SAME(n % 4 == 2 ? WIFSIGNALED(status) : status == 0, 1);
        SAME(semctl(id, 0, GETNCNT), 0);
        does(id, 0, 1, 0);
        does(id, 0, -1, NOWAIT);
    }
    set_gone(id);
}

// Two processes that hand each other the turn.
static void ping_pong(char **args)
{
    (void)args;
    enum { TURNS = 20000 };
    int id = set_of(2);
    pid_t child = fork();
    if (child == 0) {
        for (int n = 0; n < TURNS; n++) {
            does(id, 0, -1, 0);
            does(id, 1, 1, 0);
        }
        _exit(0);
    }
    for (int n = 0; n < TURNS; n++) {
        does(id, 0, 1, 0);
        does(id, 1, -1, 0);
    }
    wait_ok(child);
    SAME(value(id, 0), 0);
    SAME(value(id, 1), 0);
    set_gone(id);
}

static void threads_sleep_on_their_own(char **args)
{
    (void)args;
    int id = set_of(1);
    pthread_t threads[20];
    for (int n = 0; n < 20; n++)
        CHECK(pthread_create(&threads[n], NULL, takes_one, &id) == 0);
    until_count(id, 0, GETNCNT, 20);
    for (int n = 19; n >= 0; n--) {
        does(id, 0, 1, 0);
        SAME(semctl(id, 0, GETNCNT), n);
    }
    for (int n = 0; n < 20; n++)
        CHECK(pthread_join(threads[n], NULL) == 0);
    SAME(value(id, 0), 0);
    set_gone(id);
}

// More sleepers than a small table would have room for.
static void many_sleepers(char **args)
{
    (void)args;
    enum { MANY = 300 };
    int id = set_of(2);
    pid_t children[MANY];
    for (int n = 0; n < MANY; n++)
        children[n] = sleeper(id, OPS({(unsigned short)(n % 2), -1, 0}), 0, NULL, 0);
    until_count(id, 0, GETNCNT, MANY / 2);
    until_count(id, 1, GETNCNT, MANY / 2);
    CHECK(semop(id, OPS({0, MANY / 2, 0}, {1, MANY / 2, 0})) == 0);
    for (int n = 0; n < MANY; n++)
        wait_ok(children[n]);
    SAME(value(id, 0), 0);
    SAME(value(id, 1), 0);
    set_gone(id);
}

SCENARIOS({"blocks_and_wakes", blocks_and_wakes},
          {"given_is_given", given_is_given},
          {"first_come_first_served", first_come_first_served},
          {"simple_and_complex", simple_and_complex},
          {"zero_before_decrement", zero_before_decrement},
          {"sleepers_may_fail", sleepers_may_fail},
          {"setting_wakes", setting_wakes},
          {"removal_wakes", removal_wakes},
          {"timeouts", timeouts},
          {"killed_sleepers", killed_sleepers},
          {"sleepers_sleep", sleepers_sleep},
          {"one_is_disturbed", one_is_disturbed},
          {"other_threads_end_it", other_threads_end_it},
          {"ping_pong", ping_pong},
          {"threads_sleep_on_their_own", threads_sleep_on_their_own},
          {"many_sleepers", many_sleepers})
