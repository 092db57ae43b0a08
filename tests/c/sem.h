// SPDX-License-Identifier: MIT OR Apache-2.0
// What the test programs for semaphore sets share, beside check.h: short forms of the calls, and
// children that sleep in one. Nobody waits for a time to pass: a sleeper is one that GETNCNT or
// GETZCNT counts.
#ifndef SEM_H
#define SEM_H
#include "check.h"
#include <sys/sem.h>

union semun {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
    struct seminfo *info;
};

#define NOWAIT IPC_NOWAIT
#define UNDO SEM_UNDO
#define SEMVMX 32767

#define OPS(...) (struct sembuf[]){__VA_ARGS__}, sizeof((struct sembuf[]){__VA_ARGS__}) / sizeof(struct sembuf)

// A new set with a key; all values are 0.
static inline int set_of(int sems)
{
    int id = semget(KEY, sems, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(id >= 0);
    return id;
}

static inline void set_gone(int id)
{
    CHECK(semctl(id, 0, IPC_RMID) == 0);
}

static inline int value(int id, int sem)
{
    int got = semctl(id, sem, GETVAL);
    CHECK(got >= 0);
    return got;
}

static inline void put(int id, int sem, int val)
{
    CHECK(semctl(id, sem, SETVAL, (union semun){.val = val}) == 0);
}

// One operation on one semaphore.
static inline int op(int id, int sem, int by, int flags)
{
    struct sembuf one = {(unsigned short)sem, (short)by, (short)flags};
    return semop(id, &one, 1);
}

static inline void does(int id, int sem, int by, int flags)
{
    CHECK(op(id, sem, by, flags) == 0);
}

static inline struct semid_ds set_stat(int id)
{
    struct semid_ds ds;
    memset(&ds, 0, sizeof ds);
    CHECK(semctl(id, 0, IPC_STAT, (union semun){.buf = &ds}) == 0);
    return ds;
}

// Waits until so many are counted by GETNCNT or GETZCNT.
static inline void until_count(int id, int sem, int command, int count)
{
    for (;;) {
        int got = semctl(id, sem, command);
        CHECK(got >= 0);
        if (got == count)
            return;
        sched_yield();
    }
}

// A child that does the operations and succeeds if they end with `error` (0: success). When they
// have ended, it writes `name` to `told` if there is one.
static inline pid_t sleeper(int id, struct sembuf *ops, size_t count, int error, struct gate *told,
                            char name)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        errno = 0;
        int got = semop(id, ops, count), with = errno;
        if (told != NULL)
            CHECK(write(told->fd[1], &name, 1) == 1);
        SAME(got, error == 0 ? 0 : -1);
        if (error != 0)
            SAME(with, error);
        _exit(0);
    }
    return child;
}

// A child that sleeps in one operation, seen to be asleep.
static inline pid_t asleep_in(int id, int sem, int by, int flags, int error, struct gate *told,
                              char name)
{
    int command = by == 0 ? GETZCNT : GETNCNT;
    int before = semctl(id, sem, command);
    CHECK(before >= 0);
    pid_t child = sleeper(id, OPS({(unsigned short)sem, (short)by, (short)flags}), error, told, name);
    until_count(id, sem, command, before + 1);
    return child;
}

#endif
