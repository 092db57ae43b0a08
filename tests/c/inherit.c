// SPDX-License-Identifier: MIT OR Apache-2.0
// What children of fork have of what their parent has attached and used. The constructs may have been
// made before, in another domain: then its memory is mapped here, and must be in the children too.
#include "check.h"
#include <sys/msg.h>
#include <sys/sem.h>

enum { PAGES = 8, LENGTH = PAGES * PAGE };

// The construct of KEY + n, whoever has made it.
static int segment(int n)
{
    int id = shmget(KEY + n, LENGTH, IPC_CREAT | 0600);
    CHECK(id >= 0);
    return id;
}

// Where nothing is mapped, and nothing will be while the program does not ask for it.
static volatile char *area(void)
{
    static uintptr_t next = 0x200000000000;
    next += 4 * LENGTH;
    return (volatile char *)next;
}

static volatile char *attach_at(int id, volatile char *at, int flags)
{
    CHECK(shmat(id, (void *)at, flags) == (void *)at);
    return at;
}

static int mapped(volatile char *at)
{
    return msync((void *)at, PAGE, MS_ASYNC) == 0;
}

static void fill(volatile char *at, char with)
{
    for (int page = 0; page < PAGES; page++)
        at[page * PAGE] = (char)(with + page);
}

// Whether touching it ends a child by this signal.
static int faults(volatile char *at, int write, int signal)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (write)
            *at = 0;
        else
            (void)*at;
        _exit(0);
    }
    int status;
    SAME(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

static void use_what_is_attached(char **args)
{
    (void)args;
    int id = segment(0), second = segment(1);
    volatile char *p = attach(id), *q = attach(id), *other = attach(second);
    volatile char *reading = shmat(id, NULL, SHM_RDONLY);
    CHECK(reading != (void *)-1);
    fill(p, 'a');
    fill(other, 'A');
    pid_t child = fork();
    if (child == 0) {
        for (int page = 0; page < PAGES; page++) {
            SAME(q[page * PAGE], 'a' + page);
            SAME(reading[page * PAGE], 'a' + page);
            SAME(other[page * PAGE], 'A' + page);
        }
        SAME(nattch(id), 6);
        SAME(nattch(second), 2);
        q[1] = 'c';
        CHECK(faults(reading, 1, SIGSEGV));
        pid_t grandchild = fork();
        if (grandchild == 0) {
            SAME(p[1], 'c');
            SAME(nattch(id), 9);
            detach(p);
            detach(reading);
            other[LENGTH - 1] = 'g';
            _exit(0);
        }
        wait_ok(grandchild);
        SAME(nattch(id), 6);
        SAME(p[1], 'c');
        SAME(other[LENGTH - 1], 'g');
        detach(q);
        CHECK(!mapped(q) && mapped(p));
        q = attach(id);
        SAME(q[1], 'c');
        _exit(0);
    }
    wait_ok(child);
    SAME(reading[1], 'c');
    SAME(nattch(id), 3);
    detach(p);
    detach(q);
    detach(reading);
    detach(other);
    SAME(nattch(id), 0);
    destroy(id);
    destroy(second);
}

// What lies over a part of an attachment lies there in the child too: memory of the program, another
// segment, another part of the same segment.
static void what_lies_over_a_part_stays(char **args)
{
    (void)args;
    int id = segment(0), second = segment(1);
    volatile char *at = area();
    attach_at(id, at, 0);
    volatile char *over = attach_at(second, at + 4 * PAGE, SHM_REMAP);
    volatile char *above = attach_at(id, at + 10 * PAGE, SHM_REMAP);
    fill(over, 'A');
    fill(above, 'a');
    volatile char *own = mmap((void *)(at + PAGE), PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(own == at + PAGE);
    *own = 'o';
    pid_t child = fork();
    if (child == 0) {
        SAME(at[0], 'a');
        SAME(at[PAGE], 'o');
        SAME(at[2 * PAGE], 'c');
        SAME(at[3 * PAGE], 'd');
        for (int page = 0; page < 6; page++)
            SAME(over[page * PAGE], 'A' + page);
        for (int page = 0; page < PAGES; page++)
            SAME(above[page * PAGE], 'a' + page);
        at[1] = 'c';
        SAME(above[1], 'c');
        // Each goes as a whole, and leaves what is not its own.
        detach(at);
        CHECK(!mapped(at) && mapped(own) && *own == 'o' && !mapped(at + 2 * PAGE));
        CHECK(mapped(over) && mapped(above));
        detach(over);
        CHECK(!mapped(over) && !mapped(over + 5 * PAGE) && mapped(above));
        detach(above);
        CHECK(!mapped(above) && mapped(own));
        _exit(0);
    }
    wait_ok(child);
    SAME(above[1], 'c');
    detach(at);
    detach(over);
    detach(above);
    destroy(id);
    destroy(second);
}

static void removed_segments_are_inherited(char **args)
{
    (void)args;
    int id = segment(0);
    volatile char *p = attach(id);
    fill(p, 'a');
    destroy(id);
    pid_t child = fork();
    if (child == 0) {
        SAME(p[3 * PAGE], 'd');
        pid_t grandchild = fork();
        if (grandchild == 0) {
            p[3 * PAGE] = 'g';
            _exit(0);
        }
        wait_ok(grandchild);
        _exit(0);
    }
    wait_ok(child);
    SAME(p[3 * PAGE], 'g');
    SAME(nattch(id), 1);
    detach(p);
    FAILS(EINVAL, shmctl(id, IPC_STAT, &(struct shmid_ds){0}));
}

// Children use what the parent has used, without asking anybody for it first.
static void use_sets_and_queues(char **args)
{
    (void)args;
    int set = semget(KEY, 3, IPC_CREAT | 0600), queue = msgget(KEY, IPC_CREAT | 0600);
    CHECK(set >= 0 && queue >= 0);
    struct { long type; char text[8]; } message = {1, "parent"};
    struct sembuf up = {0, 1, 0}, down = {1, -1, 0}, undone = {2, 1, SEM_UNDO};
    SAME(semop(set, &up, 1), 0);
    SAME(semop(set, &undone, 1), 0);
    SAME(msgsnd(queue, &message, 8, 0), 0);
    for (int n = 0; n < 3; n++) {
        pid_t child = fork();
        if (child == 0) {
            SAME(msgrcv(queue, &message, 8, 0, 0), 8);
            CHECK(strcmp(message.text, n == 0 ? "parent" : "child") == 0);
            SAME(semop(set, &up, 1), 0);
            SAME(semop(set, &undone, 1), 0);
            SAME(semctl(set, 2, GETVAL), 2);
            pid_t grandchild = fork();
            if (grandchild == 0) {
                strcpy(message.text, "child");
                SAME(msgsnd(queue, &message, 8, 0), 0);
                // Sleeps until the first process gives it.
                SAME(semop(set, &down, 1), 0);
                _exit(0);
            }
            wait_ok(grandchild);
            _exit(0);
        }
        while (semctl(set, 1, GETNCNT) == 0)
            sched_yield();
        struct sembuf give = {1, 1, 0};
        SAME(semop(set, &give, 1), 0);
        wait_ok(child);
        SAME(semctl(set, 0, GETVAL), n + 2);
        SAME(semctl(set, 1, GETVAL), 0);
        SAME(semctl(set, 2, GETVAL), 1);
    }
    SAME(semctl(set, 0, IPC_RMID), 0);
    SAME(msgctl(queue, IPC_RMID, NULL), 0);
}

// A child that the C library does not know of has everything from its first call on.
static void raw_children_have_it_from_their_first_call_on(char **args)
{
    (void)args;
    int id = segment(0);
    volatile char *p = attach(id);
    fill(p, 'a');
    int set = semget(KEY, 1, IPC_CREAT | 0600);
    struct sembuf up = {0, 1, 0};
    SAME(semop(set, &up, 1), 0);
    pid_t child = (pid_t)syscall(SYS_fork);
    if (child == 0) {
        SAME(semop(set, &up, 1), 0);
        SAME(p[5 * PAGE], 'f');
        p[5 * PAGE] = 'r';
        detach(p);
        CHECK(!mapped(p));
        _exit(0);
    }
    wait_ok(child);
    SAME(p[5 * PAGE], 'r');
    SAME(semctl(set, 0, GETVAL), 2);
    // Not even that call has to have to do with sets.
    child = (pid_t)syscall(SYS_fork);
    if (child == 0) {
        detach(p);
        CHECK(!mapped(p));
        SAME(semop(set, &up, 1), 0);
        _exit(0);
    }
    wait_ok(child);
    SAME(semctl(set, 0, GETVAL), 3);
    detach(p);
    destroy(id);
    SAME(semctl(set, 0, IPC_RMID), 0);
}

static void killed_children_leave_nothing(char **args)
{
    (void)args;
    int id = segment(0);
    volatile char *p = attach(id), *q = attach(id);
    p[0] = q[0] = 0;
    struct gate up = gate_new();
    for (int n = 0; n < 30; n++) {
        pid_t child = fork();
        if (child == 0) {
            p[1] = (char)n;
            volatile char *more = attach(id);
            more[2] = (char)n;
            gate_open(&up);
            pause();
        }
        gate_pass(&up);
        SAME(nattch(id), 5);
        SAME(p[1], n);
        SAME(p[2], n);
        wait_killed(child);
        SAME(nattch(id), 2);
    }
    detach(p);
    detach(q);
    SAME(nattch(id), 0);
    destroy(id);
}

SCENARIOS({"use_what_is_attached", use_what_is_attached},
          {"what_lies_over_a_part_stays", what_lies_over_a_part_stays},
          {"removed_segments_are_inherited", removed_segments_are_inherited},
          {"use_sets_and_queues", use_sets_and_queues},
          {"raw_children_have_it_from_their_first_call_on", raw_children_have_it_from_their_first_call_on},
          {"killed_children_leave_nothing", killed_children_leave_nothing})
