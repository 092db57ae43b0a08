// SPDX-License-Identifier: MIT OR Apache-2.0
// Many processes on one set, spread over the domains that DOMAINS names (natively that means
// nothing): `sem_storm exact PROCESSES ROUNDS`, `sem_storm killed PROCESSES KILLS` and
// `sem_storm random PROCESSES KILLS`. The other roles are those of the processes.
#include "sem.h"
#include "domains.h"

enum { MUTEX, DONE, SPARE, SEMS };       // of the set of the first two
enum { KINDS = 5, AMOUNT = 12 };         // of the set of the third
enum { MOST = 128 };

static int the_set(void)
{
    int id = semget(KEY, 0, 0);
    CHECK(id >= 0);
    return id;
}

// What the mutex protects.
struct account {
    volatile long count;
    volatile pid_t inside;
    volatile long entered;
};

static struct account *account(void)
{
    return (struct account *)attach(shmget(KEY, PAGE, 0600));
}

// Dead, or dying: the kernel takes the undo before the rest.
static int is_dead(pid_t pid)
{
    char path[64], text[512] = "";
    unsigned flags = 0;
    char letter = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 1;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return 1;
    SAME(sscanf(strrchr(text, ')') + 2, "%c %*d %*d %*d %*d %*d %u", &letter, &flags), 2);
    return letter == 'Z' || letter == 'X' || (flags & 4) != 0;
}

// Counts without atomics, which is exact if nobody else is inside.
static void count_once(int id, struct account *account, int undo)
{
    does(id, MUTEX, -1, undo);
    pid_t other = account->inside;
    CHECK(other == 0 || is_dead(other));
    account->inside = getpid();
    long count = account->count;
    if (below(64) == 0)
        sched_yield();
    account->count = count + 1;
    CHECK(account->inside == getpid());
    account->inside = 0;
    does(id, MUTEX, 1, undo);
}

static void counts(char **args)
{
    seed(args[0]);
    long rounds = strtol(args[1], NULL, 0);
    int id = the_set(), undo = below(2) ? UNDO : 0;
    struct account *shared = account();
    for (long n = 0; n < rounds; n++) {
        count_once(id, shared, undo);
        if (below(8) == 0)
            CHECK(semop(id, OPS({SPARE, 1, 0}, {DONE, 1, 0})) == 0);
        else
            does(id, DONE, 1, 0);
    }
}

static void counts_for_ever(char **args)
{
    seed(args[0]);
    int id = the_set();
    struct account *shared = account();
    for (;;) {
        count_once(id, shared, UNDO);
        // Something without a mutex, so that not all stand in one queue.
        if (below(4) == 0) {
            does(id, SPARE, 1, UNDO);
            does(id, SPARE, -1, UNDO);
        }
    }
}

static void interrupted(int signal)
{
    (void)signal;
}

// Takes before it gives: nothing that others have is ever below zero, so every end restores what
// was there at the beginning.
static void takes_and_gives(char **args)
{
    int held[KINDS] = {0}, id = the_set();
    seed(args[0]);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = interrupted, .sa_flags = SA_RESTART}, NULL);
    for (;;) {
        struct sembuf ops[8];
        size_t count = 0;
        int change[KINDS] = {0};
        unsigned what = below(100);
        if (what < 3) {
            // The next program has nothing in its hands that it knows of; undo knows.
            char text[32];
            snprintf(text, sizeof text, "%u", below(1u << 30));
            execl("/proc/self/exe", "sem_storm", "takes_and_gives", text, NULL);
            CHECK(!"exec returned");
        } else if (what < 6) {
            pid_t parent = getpid(), child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != parent)
                    _exit(0);
                memset(held, 0, sizeof held);
                for (int n = getpid() % 7; n > 0; n--)
                    below(2);
            } else {
                if (below(2) == 0)
                    usleep(below(1000));
                kill(child, SIGKILL);
                SAME(waitpid(child, NULL, 0), child);
            }
            continue;
        } else if (what < 10) {
            // Itself, at some moment.
            struct itimerspec when = {.it_value = {0, 1 + below(300000)}};
            timer_t timer;
            struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
            CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
            CHECK(timer_settime(timer, 0, &when, NULL) == 0);
            semtimedop(id, OPS({(unsigned short)below(KINDS), -AMOUNT - 1, UNDO}),
                       &(struct timespec){0, 1 + below(400000)});
            CHECK(timer_delete(timer) == 0);
            continue;
        } else if (what < 12) {
            int sem = (int)below(KINDS), got = semctl(id, sem, below(2) ? GETVAL : GETNCNT);
            CHECK(got >= 0 && got < 1000);
            continue;
        }
        size_t wanted = 1 + (below(3) == 0 ? below(4) : 0);
        while (count < wanted) {
            int sem = (int)below(KINDS), mine = held[sem] + change[sem], by;
            if (below(16) == 0)
                by = 0;
            else if (mine > 0 && below(5) < 3)
                by = 1 + (int)below((unsigned)mine);
            else
                by = -1 - (int)below(4);
            ops[count++] = (struct sembuf){(unsigned short)sem, (short)by, (short)(UNDO | (below(3) ? 0 : NOWAIT))};
            change[sem] -= by;
        }
        // Who gives only need not wait; others give up after some time, but for a few.
        struct timespec some = {0, 1 + below(below(2) ? 20000 : 3000000)};
        if (semtimedop(id, ops, count, below(20) ? &some : NULL) == 0) {
            for (int sem = 0; sem < KINDS; sem++)
                held[sem] += change[sem];
        } else {
            CHECK(errno == EAGAIN || errno == EINTR);
        }
        if (below(200) == 0)
            usleep(below(2000));
    }
}

static void until_value(int id, int sem, int wanted)
{
    while (value(id, sem) != wanted)
        usleep(1000);
}

static void exact(char **args)
{
    int processes = atoi(args[0]), rounds = atoi(args[1]);
    CHECK(processes <= MOST && processes * rounds <= SEMVMX);
    pid_t children[MOST];
    int id = set_of(SEMS), segment = make(KEY, PAGE);
    struct account *shared = account();
    put(id, MUTEX, 1);
    for (int n = 0; n < processes; n++)
        children[n] = start(n, "counts", (unsigned)n + 1, args[1]);
    // All have done all.
    does(id, DONE, -processes * rounds, 0);
    for (int n = 0; n < processes; n++)
        wait_ok(children[n]);
    SAME(shared->count, processes * rounds);
    SAME(value(id, MUTEX), 1);
    SAME(value(id, DONE), 0);
    for (int sem = 0; sem < SEMS; sem++)
        SAME(semctl(id, sem, GETNCNT), 0);
    detach((void *)shared);
    destroy(segment);
    set_gone(id);
}

static void killed(char **args)
{
    int processes = atoi(args[0]);
    pid_t children[MOST];
    CHECK(processes <= MOST);
    int id = set_of(SEMS), segment = make(KEY, PAGE);
    struct account *shared = account();
    put(id, MUTEX, 1);
    kill_at_random(children, processes, atoi(args[1]), "counts_for_ever");
    until_value(id, MUTEX, 1);
    until_value(id, SPARE, 0);
    for (int sem = 0; sem < SEMS; sem++) {
        until_count(id, sem, GETNCNT, 0);
        SAME(semctl(id, sem, GETZCNT), 0);
    }
    CHECK(shared->count > 0);
    does(id, MUTEX, -1, NOWAIT);
    detach((void *)shared);
    destroy(segment);
    set_gone(id);
}

static void at_random(char **args)
{
    int processes = atoi(args[0]);
    pid_t children[MOST];
    CHECK(processes <= MOST);
    unsigned short all[KINDS];
    int id = set_of(KINDS);
    for (int sem = 0; sem < KINDS; sem++)
        all[sem] = AMOUNT;
    CHECK(semctl(id, 0, SETALL, (union semun){.array = all}) == 0);
    kill_at_random(children, processes, atoi(args[1]), "takes_and_gives");
    for (int sem = 0; sem < KINDS; sem++) {
        until_value(id, sem, AMOUNT);
        until_count(id, sem, GETNCNT, 0);
        until_count(id, sem, GETZCNT, 0);
    }
    // And all of it can be had.
    for (int sem = 0; sem < KINDS; sem++)
        does(id, sem, -AMOUNT, NOWAIT);
    set_gone(id);
}

int main(int argc, char **argv)
{
    static const struct scenario all[] = {
        {"exact", exact},   {"killed", killed},
        {"random", at_random}, {"counts", counts},
        {"counts_for_ever", counts_for_ever}, {"takes_and_gives", takes_and_gives},
    };
    return run_scenario(argc, argv, all, sizeof all / sizeof all[0]);
}
