// SPDX-License-Identifier: MIT OR Apache-2.0
// What happens to attachments when processes begin and end: fork, exec, spawn, exit, kill.
#include "check.h"
#include <spawn.h>

extern char **environ;

static void fork_counts(char **args)
{
    (void)args;
    int id = make(KEY, 2 * PAGE);
    volatile char *p = attach(id), *q = attach(id);
    struct gate up = gate_new(), down = gate_new();
    SAME(nattch(id), 2);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        SAME(nattch(id), 4);
        p[PAGE] = 7;
        gate_open(&up);
        gate_pass(&down);
        detach(q);
        SAME(nattch(id), 3);
        SAME(stat_of(id).shm_lpid, getpid());
        gate_open(&up);
        gate_pass(&down);
        _exit(0);
    }
    // The child cannot have gone: it waits for the gate.
    struct shmid_ds ds = stat_of(id);
    SAME(ds.shm_nattch, 4);
    gate_pass(&up);
    CHECK(q[PAGE] == 7);
    gate_open(&down);
    gate_pass(&up);
    SAME(nattch(id), 3);
    gate_open(&down);
    wait_ok(child);
    ds = stat_of(id);
    SAME(ds.shm_nattch, 2);
    SAME(ds.shm_lpid, child);
    detach(p);
    detach(q);
    SAME(nattch(id), 0);
    destroy(id);
}

static void fork_copies_private_segments(char **args)
{
    (void)args;
    int id = make(IPC_PRIVATE, PAGE);
    volatile char *p = attach(id);
    destroy(id);
    pid_t child = fork();
    if (child == 0) {
        struct shmid_ds ds = stat_of(id);
        SAME(ds.shm_nattch, 2);
        CHECK(ds.shm_perm.mode & SHM_DEST);
        p[0] = 'c';
        detach(p);
        SAME(nattch(id), 1);
        // A second attachment of a removed segment is allowed to who knows the id.
        volatile char *again = attach(id);
        CHECK(again[0] == 'c');
        _exit(0);
    }
    wait_ok(child);
    CHECK(p[0] == 'c');
    SAME(nattch(id), 1);
    detach(p);
    FAILS(EINVAL, shmctl(id, IPC_STAT, &(struct shmid_ds){0}));
}

static void grandchild_outlives(char **args)
{
    (void)args;
    // Orphans come back to this process, so that it can wait for them.
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    int id = make(KEY, PAGE);
    struct gate up = gate_new(), down = gate_new();
    pid_t parent = fork();
    if (parent == 0) {
        volatile char *p = attach(id);
        if (fork() == 0) {
            if (fork() == 0) {
                SAME(nattch(id), 3);
                p[0] = 3;
                pid_t family[2] = {getppid(), getpid()};
                CHECK(write(up.fd[1], family, sizeof family) == sizeof family);
                gate_pass(&down);
                p[0]++;
            }
            pause();
        }
        pause();
    }
    pid_t family[2];
    CHECK(read(up.fd[0], family, sizeof family) == sizeof family);
    SAME(nattch(id), 3);
    wait_killed(parent);
    SAME(nattch(id), 2);
    wait_killed(family[0]);
    SAME(nattch(id), 1);
    // The child of a child of a dead process goes on as before.
    volatile char *mine = attach(id);
    gate_open(&down);
    while (mine[0] != 4)
        sched_yield();
    SAME(nattch(id), 2);
    wait_killed(family[1]);
    SAME(nattch(id), 1);
    detach(mine);
    destroy(id);
}

static void sleeper(void) { pause(); }
static void leave_exit(void) { exit(0); }
static void leave_underscore(void) { _exit(0); }
static void leave_quick(void) { quick_exit(0); }
static void leave_abort(void) { abort(); }
static void leave_segv(void) { *(volatile int *)8 = 1; }
static void leave_raise(void) { raise(SIGKILL); }
static void leave_syscall(void) { syscall(SYS_exit_group, 0); }

static void every_end_is_counted(char **args)
{
    (void)args;
    void (*ways[])(void) = {leave_exit,  leave_underscore, leave_quick,   leave_abort,
                            leave_segv,  leave_raise,      leave_syscall, sleeper};
    CHECK(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}) == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        int id = make(KEY, PAGE);
        struct gate up = gate_new(), down = gate_new();
        pid_t child = fork();
        if (child == 0) {
            attach(id);
            attach(id);
            attach(id);
            gate_open(&up);
            gate_pass(&down);
            ways[way]();
            _exit(1);
        }
        gate_pass(&up);
        SAME(nattch(id), 3);
        gate_open(&down);
        if (ways[way] == sleeper)
            CHECK(kill(child, SIGKILL) == 0);
        SAME(waitpid(child, NULL, 0), child);
        struct shmid_ds ds = stat_of(id);
        SAME(ds.shm_nattch, 0);
        SAME(ds.shm_lpid, child);
        CHECK(ds.shm_dtime != 0);

        // The same for a segment that lives only as long as that process.
        child = fork();
        if (child == 0) {
            attach(id)[0] = 5;
            gate_open(&up);
            gate_pass(&down);
            ways[way]();
            _exit(1);
        }
        gate_pass(&up);
        destroy(id);
        SAME(nattch(id), 1);
        int next = make(KEY, PAGE); // the key is free at once
        CHECK(next != id);
        gate_open(&down);
        if (ways[way] == sleeper)
            CHECK(kill(child, SIGKILL) == 0);
        SAME(waitpid(child, NULL, 0), child);
        FAILS(EINVAL, shmctl(id, IPC_STAT, &(struct shmid_ds){0}));
        FAILS(EINVAL, (intptr_t)shmat(id, NULL, 0));
        SAME(nattch(next), 0);
        destroy(next);
        for (int i = 0; i < 2; i++) {
            close(up.fd[i]);
            close(down.fd[i]);
        }
    }
}

static void each_of_many_children_is_counted(char **args)
{
    (void)args;
    enum { CHILDREN = 50 };
    pid_t child[CHILDREN];
    int id = make(KEY, PAGE);
    attach(id);
    for (int i = 0; i < CHILDREN; i++) {
        child[i] = fork();
        if (child[i] == 0) {
            pause();
            _exit(0);
        }
        SAME(nattch(id), i + 2);
    }
    for (int i = 0; i < CHILDREN; i++) {
        wait_killed(child[i]);
        SAME(nattch(id), CHILDREN - i);
    }
    destroy(id);
}

// Killed before they can have done anything, or while they do their first thing.
static void children_killed_at_birth(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    attach(id);
    for (int i = 0; i < share(500); i++) {
        pid_t child = fork();
        if (child == 0)
            for (;;)
                detach(attach(id));
        if (i % 2)
            usleep((useconds_t)i);
        wait_killed(child);
        SAME(nattch(id), 1);
    }
    destroy(id);
}

// `nothing ID N ADDRESS`: run by exec in a process that has attached nothing, while N
// attachments exist elsewhere.
static void nothing(char **args)
{
    int id = atoi(args[0]);
    SAME(nattch(id), atol(args[1]));
    void *address = (void *)strtoul(args[2], NULL, 16);
    FAILS(EINVAL, shmdt(address));
    volatile char *p = attach(id);
    CHECK(p[0] == 42);
    SAME(nattch(id), atol(args[1]) + 1);
    printf("fine\n");
}

static char self[256], id_text[16], address_text[32];

static void name_self(int id, volatile char *p)
{
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(n > 0);
    self[n] = 0;
    snprintf(id_text, sizeof id_text, "%d", id);
    snprintf(address_text, sizeof address_text, "%lx", (unsigned long)p);
    p[0] = 42;
}

static void exec_detaches(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    volatile char *p = attach(id);
    name_self(id, p);

    pid_t child = fork();
    if (child == 0) {
        // An exec that fails changes nothing.
        FAILS(ENOENT, execl("/no/such/program", "program", NULL));
        SAME(nattch(id), 2);
        CHECK(p[0] == 42);
        attach(id);
        SAME(nattch(id), 3);
        execl(self, "life", "nothing", id_text, "1", address_text, NULL);
        CHECK(!"exec returned");
    }
    wait_ok(child);
    SAME(nattch(id), 1);

    child = vfork();
    if (child == 0) {
        execl(self, "life", "nothing", id_text, "1", address_text, NULL);
        _exit(98);
    }
    wait_ok(child);
    SAME(nattch(id), 1);

    child = vfork();
    if (child == 0)
        _exit(0);
    wait_ok(child);
    SAME(nattch(id), 1);

    char *spawned[] = {"life", "nothing", id_text, "1", address_text, NULL};
    CHECK(posix_spawn(&child, self, NULL, NULL, spawned, environ) == 0);
    wait_ok(child);
    SAME(nattch(id), 1);

    char command[512];
    snprintf(command, sizeof command, "%s nothing %s 1 %s >/dev/null", self, id_text, address_text);
    SAME(system(command), 0);
    SAME(nattch(id), 1);

    snprintf(command, sizeof command, "%s nothing %s 1 %s", self, id_text, address_text);
    FILE *out = popen(command, "re");
    CHECK(out != NULL);
    char line[64] = "";
    CHECK(fgets(line, sizeof line, out) != NULL);
    CHECK(strcmp(line, "fine\n") == 0);
    SAME(pclose(out), 0);
    SAME(nattch(id), 1);

    // The program itself: what it has attached is gone in its successor.
    execl(self, "life", "nothing", id_text, "0", address_text, NULL);
    CHECK(!"exec returned");
}

static void *exec_from_thread(void *address)
{
    (void)address;
    execl(self, "life", "nothing", id_text, "0", address_text, NULL);
    return NULL;
}

static void exec_in_a_thread_detaches(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    volatile char *p = attach(id);
    name_self(id, p);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, exec_from_thread, NULL) == 0);
    pthread_join(thread, NULL);
    CHECK(!"exec returned");
}

static struct gate thread_down;

static void *hold_on(void *unused)
{
    (void)unused;
    gate_pass(&thread_down);
    return NULL;
}

// The first thread of a process may end before the others: the process lives on.
static void main_thread_ends_first(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    struct gate up = gate_new();
    thread_down = gate_new();
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        attach(id);
        CHECK(pthread_create(&thread, NULL, hold_on, NULL) == 0);
        gate_open(&up);
        pthread_exit(NULL);
    }
    gate_pass(&up);
    until_state(child, 'Z');
    SAME(nattch(id), 1);
    // Long enough for a daemon that looks at its clients from time to time to look.
    nanosleep(&(struct timespec){0, 600000000}, NULL);
    SAME(nattch(id), 1);
    gate_open(&thread_down);
    wait_ok(child);
    SAME(nattch(id), 0);
    destroy(id);
}

static void in_other_fork(pid_t child, int id, volatile char *p)
{
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(p[0] == 42);
        volatile char *mine = attach(id);
        mine[1] = 43;
        SAME(nattch(id), 3);
        detach(p);
        SAME(nattch(id), 2);
        int other = make(KEY + 1, PAGE);
        attach(other)[0] = 1;
        SAME(nattch(other), 1);
        destroy(other);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            SAME(nattch(id), 3);
            _exit(mine[1] == 43 ? 0 : 1);
        }
        wait_ok(grandchild);
        SAME(nattch(id), 2);
        _exit(0);
    }
    wait_ok(child);
    CHECK(p[1] == 43);
    SAME(nattch(id), 1);
}

// Run as root, since a limit of processes does not hold for root: the child takes another identity.
static void fork_that_fails(char **args)
{
    (void)args;
    int id = shmget(KEY, PAGE, IPC_CREAT | IPC_EXCL | 0666);
    CHECK(id >= 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
        CHECK(setrlimit(RLIMIT_NPROC, &(struct rlimit){0, 0}) == 0);
        volatile char *p = attach(id);
        for (int i = 0; i < share(100); i++) {
            FAILS(EAGAIN, fork());
            SAME(nattch(id), 1);
        }
        volatile char *q = attach(id);
        detach(p);
        SAME(nattch(id), 1);
        q[0] = 1;
        destroy(shmget(KEY + 1, PAGE, IPC_CREAT | 0600));
        _exit(0);
    }
    wait_ok(child);
    SAME(nattch(id), 0);
    destroy(id);
}

// The ways to fork that pass by fork(): the child has no handlers run in it.
static void forks_behind_the_back_of_libc(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    volatile char *p = attach(id);
    p[0] = 42;
    in_other_fork(_Fork(), id, p);
    in_other_fork((pid_t)syscall(SYS_fork), id, p);
    in_other_fork((pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), id, p);
    struct {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
    } clone3 = {.exit_signal = SIGCHLD};
    in_other_fork((pid_t)syscall(SYS_clone3, &clone3, sizeof clone3), id, p);
    destroy(id);
}

SCENARIOS({"fork_counts", fork_counts},
          {"fork_copies_private_segments", fork_copies_private_segments},
          {"grandchild_outlives", grandchild_outlives},
          {"every_end_is_counted", every_end_is_counted},
          {"each_of_many_children_is_counted", each_of_many_children_is_counted},
          {"children_killed_at_birth", children_killed_at_birth},
          {"nothing", nothing},
          {"exec_detaches", exec_detaches},
          {"exec_in_a_thread_detaches", exec_in_a_thread_detaches},
          {"main_thread_ends_first", main_thread_ends_first},
          {"fork_that_fails", fork_that_fails},
          {"forks_behind_the_back_of_libc", forks_behind_the_back_of_libc})
