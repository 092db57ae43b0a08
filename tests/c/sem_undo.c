// SPDX-License-Identifier: MIT OR Apache-2.0
// SEM_UNDO: what a process did is taken back when it ends, however it ends. Its parent sees that
// as soon as it has waited for it.
#include "sem.h"
#include <spawn.h>

extern char **environ;

// Programs that scenarios execute.

static void holds(char **args)
{
    // ID DESCRIPTOR DESCRIPTOR: one more with undo, says so, and waits for word.
    int id = (int)strtol(args[0], NULL, 0), up = (int)strtol(args[1], NULL, 0);
    int down = (int)strtol(args[2], NULL, 0);
    char byte;
    does(id, 0, -1, UNDO);
    CHECK(write(up, "x", 1) == 1);
    CHECK(read(down, &byte, 1) == 1);
}

static void *lives_on(void *id)
{
    does(*(int *)id, 0, -1, UNDO);
    return NULL;
}

enum { EXIT, QUICK_EXIT, RAW_EXIT, ABORT, KILL, FAULT, LAST_THREAD, RETURN_OF_THREAD, EXEC, WAYS };

static void end(int way, int id)
{
    pthread_t thread;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    switch (way) {
    case EXIT:
        exit(0);
    case QUICK_EXIT:
        _exit(0);
    case RAW_EXIT:
        syscall(SYS_exit_group, 0);
        break;
    case ABORT:
        abort();
    case KILL:
        kill(getpid(), SIGKILL);
        break;
    case FAULT:
        *(volatile int *)8 = 1;
        break;
    case LAST_THREAD:
        does(id, 0, 1, UNDO);
        CHECK(pthread_create(&thread, NULL, lives_on, &id) == 0);
        pthread_exit(NULL);
    case RETURN_OF_THREAD:
        pthread_exit(NULL);
    case EXEC:
        execl("/bin/true", "true", NULL);
    }
    CHECK(!"it ended");
}

static void every_end_undoes(char **args)
{
    (void)args;
    int id = set_of(3);
    put(id, 0, 5);
    put(id, 1, 3);
    for (int n = 0; n < 10 * WAYS; n++) {
        pid_t child = fork();
        if (child == 0) {
            CHECK(semop(id, OPS({0, -1, UNDO}, {1, -2, UNDO}, {2, 4, UNDO})) == 0);
            does(id, 1, 2, 0);
            does(id, 1, -1, 0);
            end(n % WAYS, id);
        }
        SAME(waitpid(child, NULL, 0), child);
        SAME(value(id, 0), 5);
        SAME(value(id, 1), 4);
        SAME(value(id, 2), 0);
        SAME(semctl(id, 0, GETPID), child);
        does(id, 1, -1, 0);
    }
    set_gone(id);
}

static void killed_at_any_moment(char **args)
{
    (void)args;
    int id = set_of(2);
    put(id, 0, 3);
    for (int n = 0; n < 300; n++) {
        pid_t child = fork();
        if (child == 0) {
            for (;;) {
                does(id, 0, -1, UNDO);
                does(id, 1, 1, UNDO);
                CHECK(semop(id, OPS({0, 1, UNDO}, {1, -1, UNDO})) == 0);
            }
        }
        nanosleep(&(struct timespec){0, n * 7919 % 3000000}, NULL);
        wait_killed(child);
        SAME(value(id, 0), 3);
        SAME(value(id, 1), 0);
        SAME(semctl(id, 0, GETNCNT), 0);
    }
    set_gone(id);
}

static void undo_wakes(char **args)
{
    (void)args;
    int id = set_of(2);
    put(id, 0, 1);
    for (int n = 0; n < 50; n++) {
        struct gate up = gate_new(), told = gate_new();
        pid_t holder = fork();
        if (holder == 0) {
            does(id, 0, -1, UNDO);
            does(id, 1, 1, UNDO);
            gate_open(&up);
            for (;;)
                pause();
        }
        gate_pass(&up);
        pid_t waiter = asleep_in(id, 0, -1, UNDO, 0, &told, 'w'), zero = asleep_in(id, 1, 0, 0, 0, NULL, 0);
        wait_killed(holder);
        SAME(told_by(&told), 'w');
        wait_ok(waiter);
        wait_ok(zero);
        SAME(value(id, 0), 1);
        for (int side = 0; side < 2; side++) {
            close(up.fd[side]);
            close(told.fd[side]);
        }
    }
    set_gone(id);
}

// A value stays in its range, whatever is to be taken back.
static void undo_stays_in_range(char **args)
{
    (void)args;
    int id = set_of(2);
    struct gate up = gate_new(), down = gate_new();
    pid_t child = fork();
    if (child == 0) {
        does(id, 0, 5, UNDO);
        does(id, 1, 7, 0);
        does(id, 1, -7, UNDO);
        gate_open(&up);
        gate_pass(&down);
        _exit(0);
    }
    gate_pass(&up);
    does(id, 0, -3, 0);
    does(id, 1, SEMVMX - 2, 0);
    gate_open(&down);
    wait_ok(child);
    SAME(value(id, 0), 0);
    SAME(value(id, 1), SEMVMX);
    set_gone(id);
}

static void setting_clears_undo(char **args)
{
    (void)args;
    int id = set_of(3);
    struct gate up = gate_new(), down = gate_new();
    pid_t children[3];
    for (int n = 0; n < 3; n++) {
        children[n] = fork();
        if (children[n] == 0) {
            CHECK(semop(id, OPS({0, 1, UNDO}, {1, 2, UNDO}, {2, 3, UNDO})) == 0);
            gate_open(&up);
            gate_pass(&down);
            if (n == 0)
                does(id, 1, 4, UNDO);
            _exit(0);
        }
        gate_pass(&up);
    }
    put(id, 1, 10);
    for (int n = 0; n < 3; n++)
        gate_open(&down);
    for (int n = 0; n < 3; n++)
        wait_ok(children[n]);
    SAME(value(id, 0), 0);
    SAME(value(id, 1), 10);
    SAME(value(id, 2), 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(semop(id, OPS({0, 1, UNDO}, {1, 2, UNDO}, {2, 3, UNDO})) == 0);
        unsigned short all[3] = {7, 8, 9};
        CHECK(semctl(id, 0, SETALL, (union semun){.array = all}) == 0);
        does(id, 2, 1, UNDO);
        does(id, 2, 1, 0);
        _exit(0);
    }
    wait_ok(child);
    SAME(value(id, 0), 7);
    SAME(value(id, 1), 8);
    SAME(value(id, 2), 10);
    set_gone(id);
}

static void sleepers_undo(char **args)
{
    (void)args;
    int id = set_of(2);
    // What was done for a sleeper is its own, and undone with it.
    for (int n = 0; n < 50; n++) {
        struct gate told = gate_new();
        pid_t child = fork();
        if (child == 0) {
            CHECK(semop(id, OPS({0, -1, UNDO}, {1, 2, UNDO})) == 0);
            gate_open(&told);
            for (;;)
                pause();
        }
        until_count(id, 0, GETNCNT, 1);
        does(id, 0, 1, 0);
        SAME(value(id, 0), 0);
        SAME(value(id, 1), 2);
        // Whether or not it has noticed.
        if (n % 2)
            gate_pass(&told);
        wait_killed(child);
        SAME(value(id, 0), 1);
        SAME(value(id, 1), 0);
        does(id, 0, -1, NOWAIT);
        close(told.fd[0]);
        close(told.fd[1]);
    }
    // One that never got anything has nothing to undo.
    pid_t child = asleep_in(id, 0, -1, UNDO, 0, NULL, 0);
    wait_killed(child);
    SAME(value(id, 0), 0);
    set_gone(id);
}

static void children_do_not_inherit(char **args)
{
    (void)args;
    int id = set_of(2);
    put(id, 0, 5);
    pid_t child = fork();
    if (child == 0) {
        does(id, 0, -1, UNDO);
        pid_t grandchild = fork();
        if (grandchild == 0)
            exit(0);
        wait_ok(grandchild);
        SAME(value(id, 0), 4);
        grandchild = fork();
        if (grandchild == 0) {
            does(id, 0, -2, UNDO);
            exit(0);
        }
        wait_ok(grandchild);
        SAME(value(id, 0), 4);
        // Nor does a parent inherit from a child.
        if ((grandchild = vfork()) == 0)
            _exit(0);
        wait_ok(grandchild);
        SAME(value(id, 0), 4);
        exit(0);
    }
    wait_ok(child);
    SAME(value(id, 0), 5);
    set_gone(id);
}

static struct gate thread_up, thread_down;

static void *takes_and_ends(void *id)
{
    does(*(int *)id, 0, -1, UNDO);
    return NULL;
}

static void *takes_and_stays(void *id)
{
    does(*(int *)id, 0, -1, UNDO);
    gate_open(&thread_up);
    gate_pass(&thread_down);
    does(*(int *)id, 0, -1, UNDO);
    return NULL;
}

static void threads_share_it(char **args)
{
    (void)args;
    int id = set_of(1);
    put(id, 0, 10);
    pid_t child = fork();
    if (child == 0) {
        pthread_t threads[4], stays;
        for (int n = 0; n < 4; n++)
            CHECK(pthread_create(&threads[n], NULL, takes_and_ends, &id) == 0);
        for (int n = 0; n < 4; n++)
            CHECK(pthread_join(threads[n], NULL) == 0);
        // Their ends are no ends of the process.
        SAME(value(id, 0), 6);
        does(id, 0, 2, UNDO);
        thread_up = gate_new();
        thread_down = gate_new();
        CHECK(pthread_create(&stays, NULL, takes_and_stays, &id) == 0);
        gate_pass(&thread_up);
        SAME(value(id, 0), 7);
        gate_open(&thread_down);
        pthread_exit(NULL);
    }
    wait_ok(child);
    SAME(value(id, 0), 10);
    set_gone(id);
}

static pid_t start_holder(int id, struct gate *up, struct gate *down, int way, char *const *environment)
{
    char texts[3][16];
    snprintf(texts[0], sizeof texts[0], "%d", id);
    snprintf(texts[1], sizeof texts[1], "%d", up->fd[1]);
    snprintf(texts[2], sizeof texts[2], "%d", down->fd[0]);
    char *arguments[] = {"sem_undo", "holds", texts[0], texts[1], texts[2], NULL};
    CHECK(fcntl(up->fd[1], F_SETFD, 0) == 0 && fcntl(down->fd[0], F_SETFD, 0) == 0);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        does(id, 0, -1, UNDO);
        if (way == 1)
            does(id, 0, 2, UNDO);
        if (way == 2) {
            // exec by another thread than the one that has done it all.
            pid_t spawned;
            CHECK(posix_spawn(&spawned, "/bin/true", NULL, NULL, (char *[]){"true", NULL}, environ) == 0);
            SAME(waitpid(spawned, NULL, 0), spawned);
            SAME(value(id, 0), 4);
        }
        execve("/proc/self/exe", arguments, environment);
        _exit(98);
    }
    return child;
}

static void exec_keeps_it(char **args)
{
    (void)args;
    int id = set_of(1);
    put(id, 0, 5);
    for (int n = 0; n < 30; n++) {
        struct gate up = gate_new(), down = gate_new();
        pid_t child = start_holder(id, &up, &down, n % 3, environ);
        gate_pass(&up);
        SAME(value(id, 0), n % 3 == 1 ? 5 : 3);
        SAME(semctl(id, 0, GETPID), child);
        if (n % 2) {
            gate_open(&down);
            wait_ok(child);
        } else {
            wait_killed(child);
        }
        SAME(value(id, 0), 5);
        for (int side = 0; side < 2; side++) {
            close(up.fd[side]);
            close(down.fd[side]);
        }
    }
    set_gone(id);
}

// The program that follows need not know of any of this.
static void exec_without_environment(char **args)
{
    (void)args;
    int id = set_of(1);
    put(id, 0, 5);
    for (int n = 0; n < 10; n++) {
        struct gate in = gate_new(), out = gate_new();
        pid_t child = fork();
        if (child == 0) {
            does(id, 0, -2, UNDO);
            CHECK(dup2(in.fd[0], 0) == 0 && dup2(out.fd[1], 1) == 1);
            execve("/bin/cat", (char *[]){"cat", NULL}, (char *[]){NULL});
            _exit(98);
        }
        // It is the other program that answers.
        gate_open(&in);
        gate_pass(&out);
        SAME(value(id, 0), 3);
        does(id, 0, -3, 0);
        does(id, 0, 3, 0);
        if (n % 2) {
            close(in.fd[1]);
            wait_ok(child);
        } else {
            wait_killed(child);
            close(in.fd[1]);
        }
        SAME(value(id, 0), 5);
        close(in.fd[0]);
        close(out.fd[0]);
        close(out.fd[1]);
    }
    set_gone(id);
}

static void *executes(void *unused)
{
    (void)unused;
    execl("/bin/true", "true", NULL);
    return NULL;
}

static void exec_in_a_thread(char **args)
{
    (void)args;
    int id = set_of(1);
    put(id, 0, 5);
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        does(id, 0, -2, UNDO);
        CHECK(pthread_create(&thread, NULL, executes, NULL) == 0);
        for (;;)
            pause();
    }
    wait_ok(child);
    SAME(value(id, 0), 5);
    set_gone(id);
}

static void removed_sets_undo_nothing(char **args)
{
    (void)args;
    int id = set_of(1);
    struct gate up = gate_new(), down = gate_new();
    pid_t child = fork();
    if (child == 0) {
        does(id, 0, 3, UNDO);
        gate_open(&up);
        gate_pass(&down);
        FAILS(EINVAL, op(id, 0, 1, UNDO));
        int other = semget(KEY, 1, 0);
        does(other, 0, 2, UNDO);
        does(other, 0, 5, 0);
        exit(0);
    }
    gate_pass(&up);
    set_gone(id);
    int other = set_of(1);
    does(other, 0, 1, 0);
    gate_open(&down);
    wait_ok(child);
    SAME(value(other, 0), 6);
    set_gone(other);
}

static void many_sets(char **args)
{
    (void)args;
    enum { SETS = 60 };
    int ids[SETS];
    for (int n = 0; n < SETS; n++) {
        ids[n] = semget(IPC_PRIVATE, 1 + n, 0600);
        CHECK(ids[n] >= 0);
        put(ids[n], n, 100);
    }
    pid_t child = fork();
    if (child == 0) {
        for (int round = 0; round < 5; round++)
            for (int n = 0; n < SETS; n++)
                does(ids[n], n, n % 2 ? 1 + round : -1 - round, UNDO);
        kill(getpid(), SIGKILL);
    }
    SAME(waitpid(child, NULL, 0), child);
    for (int n = 0; n < SETS; n++) {
        SAME(value(ids[n], n), 100);
        set_gone(ids[n]);
    }
}

// More processes with undo, one after another and at once.
static void many_processes(char **args)
{
    (void)args;
    enum { AT_ONCE = 100 };
    int id = set_of(1);
    struct gate up = gate_new();
    put(id, 0, 1000);
    for (int round = 0; round < 3; round++) {
        pid_t children[AT_ONCE];
        for (int n = 0; n < AT_ONCE; n++) {
            children[n] = fork();
            if (children[n] == 0) {
                does(id, 0, -3, UNDO);
                gate_open(&up);
                for (;;)
                    pause();
            }
        }
        for (int n = 0; n < AT_ONCE; n++)
            gate_pass(&up);
        SAME(value(id, 0), 1000 - 3 * AT_ONCE);
        for (int n = 0; n < AT_ONCE; n++) {
            wait_killed(children[n]);
            SAME(value(id, 0), 1000 - 3 * (AT_ONCE - n - 1));
        }
    }
    set_gone(id);
}

SCENARIOS({"holds", holds},
          {"every_end_undoes", every_end_undoes},
          {"killed_at_any_moment", killed_at_any_moment},
          {"undo_wakes", undo_wakes},
          {"undo_stays_in_range", undo_stays_in_range},
          {"setting_clears_undo", setting_clears_undo},
          {"sleepers_undo", sleepers_undo},
          {"children_do_not_inherit", children_do_not_inherit},
          {"threads_share_it", threads_share_it},
          {"exec_keeps_it", exec_keeps_it},
          {"exec_without_environment", exec_without_environment},
          {"exec_in_a_thread", exec_in_a_thread},
          {"removed_sets_undo_nothing", removed_sets_undo_nothing},
          {"many_sets", many_sets},
          {"many_processes", many_processes})
