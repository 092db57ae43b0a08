// SPDX-License-Identifier: MIT OR Apache-2.0
// Who may do what to a semaphore set: the caller's effective ids at each call. Runs as root and
// takes other identities.
#include "sem.h"
#include "identity.h"

static void set_mode(int id, uid_t uid, gid_t gid, mode_t mode)
{
    struct semid_ds ds = {.sem_perm = {.uid = uid, .gid = gid, .mode = mode}};
    CHECK(semctl(id, 0, IPC_SET, (union semun){.buf = &ds}) == 0);
}

static void may_read(int id)
{
    unsigned short all[2];
    SAME(semget(KEY, 0, 0400), id);
    does(id, 1, 0, 0);
    does(id, 1, 0, UNDO);
    CHECK(semctl(id, 0, GETALL, (union semun){.array = all}) == 0);
    value(id, 0);
    CHECK(semctl(id, 0, GETPID) >= 0);
    SAME(semctl(id, 0, GETNCNT), 0);
    SAME(semctl(id, 0, GETZCNT), 0);
    set_stat(id);
}

static void may_not_read(int id)
{
    unsigned short all[2];
    struct semid_ds ds;
    FAILS(EACCES, semget(KEY, 0, 0400));
    FAILS(EACCES, semctl(id, 0, GETALL, (union semun){.array = all}));
    FAILS(EACCES, semctl(id, 0, GETALL, (union semun){.array = NULL}));
    FAILS(EACCES, semctl(id, 0, GETVAL));
    FAILS(EACCES, semctl(id, 9, GETVAL));
    FAILS(EACCES, semctl(id, 0, GETPID));
    FAILS(EACCES, semctl(id, 0, GETNCNT));
    FAILS(EACCES, semctl(id, 0, GETZCNT));
    FAILS(EACCES, semctl(id, 0, IPC_STAT, (union semun){.buf = &ds}));
    FAILS(EACCES, semctl(id, 0, IPC_STAT, (union semun){.buf = NULL}));
    FAILS(EACCES, op(id, 1, 0, 0));
    FAILS(EACCES, op(id, 1, 0, UNDO));
    FAILS(EFBIG, op(id, 9, 0, 0));
}

static void may_alter(int id)
{
    unsigned short all[2] = {0, 0};
    SAME(semget(KEY, 0, 0200), id);
    does(id, 0, 1, 0);
    does(id, 0, -1, UNDO | NOWAIT);
    FAILS(EAGAIN, op(id, 0, -1, NOWAIT));
    CHECK(semop(id, OPS({1, 0, 0}, {0, 1, 0})) == 0);
    put(id, 0, 3);
    CHECK(semctl(id, 0, SETALL, (union semun){.array = all}) == 0);
    FAILS(ERANGE, semctl(id, 0, SETVAL, (union semun){.val = -1}));
    FAILS(EINVAL, semctl(id, 2, SETVAL, (union semun){.val = 1}));
    FAILS(EFAULT, semctl(id, 0, SETALL, (union semun){.array = NULL}));
}

static void may_not_alter(int id)
{
    unsigned short all[2] = {0, 0};
    FAILS(EACCES, semget(KEY, 0, 0200));
    FAILS(EACCES, semget(KEY, 0, 0600));
    FAILS(EACCES, op(id, 0, 1, 0));
    FAILS(EACCES, op(id, 0, 1, UNDO));
    FAILS(EACCES, op(id, 0, -1, 0));
    FAILS(EACCES, op(id, 0, -1, NOWAIT));
    FAILS(EACCES, semop(id, OPS({1, 0, 0}, {0, 1, 0})));
    FAILS(EACCES, semtimedop(id, OPS({0, -1, 0}), &(struct timespec){0, 0}));
    FAILS(EINVAL, semtimedop(id, OPS({0, -1, 0}), &(struct timespec){0, -1}));
    FAILS(EFBIG, op(id, 2, 1, 0));
    FAILS(EACCES, semctl(id, 0, SETVAL, (union semun){.val = 1}));
    FAILS(ERANGE, semctl(id, 0, SETVAL, (union semun){.val = -1}));
    FAILS(EINVAL, semctl(id, 2, SETVAL, (union semun){.val = 1}));
    FAILS(EACCES, semctl(id, 0, SETALL, (union semun){.array = all}));
    FAILS(EACCES, semctl(id, 0, SETALL, (union semun){.array = NULL}));
}

static void may_not_control(int id)
{
    struct semid_ds ds = {.sem_perm = {.uid = geteuid(), .gid = getegid(), .mode = 0666}};
    FAILS(EPERM, semctl(id, 0, IPC_SET, (union semun){.buf = &ds}));
    FAILS(EFAULT, semctl(id, 0, IPC_SET, (union semun){.buf = (void *)-8L}));
    FAILS(EPERM, semctl(id, 0, IPC_RMID));
}

static void modes_decide(char **args)
{
    (void)args;
    int id = set_of(2);
    set_mode(id, ALICE, STAFF, 0600);
    AS(ALICE, GUESTS, may_read(id); may_alter(id));
    AS(BOB, STAFF, may_not_read(id); may_not_alter(id); may_not_control(id));
    set_mode(id, ALICE, STAFF, 0460);
    AS(ALICE, STAFF, may_read(id); may_not_alter(id));
    AS(BOB, STAFF, may_read(id); may_alter(id); may_not_control(id));
    AS(BOB, GUESTS, may_not_read(id); may_not_alter(id));
    set_mode(id, ALICE, STAFF, 0204);
    AS(ALICE, STAFF, may_not_read(id); may_alter(id));
    AS(BOB, STAFF, may_not_read(id); may_not_alter(id));
    AS(BOB, GUESTS, may_read(id); may_not_alter(id));
    set_mode(id, ALICE, STAFF, 0002);
    AS(BOB, GUESTS, may_not_read(id); may_alter(id));
    set_mode(id, ALICE, STAFF, 0);
    AS(ALICE, STAFF, may_not_read(id); may_not_alter(id));
    // Root may whatever the mode says.
    may_read(id);
    may_alter(id);
    set_gone(id);
}

// Asking for something first, and having it no more.
static void ids_at_each_call(char **args)
{
    (void)args;
    int id = set_of(2);
    set_mode(id, ALICE, STAFF, 0600);
    pid_t child = fork();
    if (child == 0) {
        CHECK(setgroups(0, NULL) == 0 && setresgid(GUESTS, GUESTS, GUESTS) == 0);
        for (int n = 0; n < 20; n++) {
            CHECK(seteuid(ALICE) == 0);
            does(id, 0, 1, n % 2 ? UNDO : 0);
            does(id, 0, -1, n % 2 ? UNDO : 0);
            value(id, 0);
            CHECK(seteuid(0) == 0);
            does(id, 0, 1, 0);
            does(id, 0, -1, 0);
            CHECK(seteuid(BOB) == 0);
            may_not_read(id);
            may_not_alter(id);
            CHECK(seteuid(0) == 0);
        }
        CHECK(syscall(SYS_setresuid, BOB, BOB, BOB) == 0);
        may_not_read(id);
        may_not_alter(id);
        _exit(0);
    }
    wait_ok(child);
    // Groups, the supplementary ones too.
    set_mode(id, ALICE, STAFF, 0060);
    child = fork();
    if (child == 0) {
        gid_t groups[2] = {GUESTS, STAFF};
        CHECK(setgroups(2, groups) == 0 && setresgid(GUESTS, GUESTS, GUESTS) == 0);
        CHECK(seteuid(BOB) == 0);
        may_read(id);
        may_alter(id);
        CHECK(seteuid(0) == 0 && setgroups(1, groups) == 0 && seteuid(BOB) == 0);
        may_not_read(id);
        may_not_alter(id);
        CHECK(seteuid(0) == 0 && setegid(STAFF) == 0 && seteuid(BOB) == 0);
        may_read(id);
        may_alter(id);
        _exit(0);
    }
    wait_ok(child);
    set_gone(id);
}

// What another process changes holds from its call on.
static void modes_at_each_call(char **args)
{
    (void)args;
    int id = set_of(2);
    struct gate up = gate_new(), down = gate_new();
    set_mode(id, ALICE, STAFF, 0600);
    pid_t child = fork();
    if (child == 0) {
        become(ALICE, STAFF);
        for (int n = 0; n < 20; n++) {
            gate_pass(&down);
            may_read(id);
            may_alter(id);
            gate_open(&up);
            gate_pass(&down);
            may_read(id);
            may_not_alter(id);
            gate_open(&up);
            gate_pass(&down);
            may_not_read(id);
            may_not_alter(id);
            may_not_control(id);
            gate_open(&up);
        }
        _exit(0);
    }
    for (int n = 0; n < 20; n++) {
        set_mode(id, ALICE, STAFF, 0600);
        gate_open(&down);
        gate_pass(&up);
        set_mode(id, n % 2 ? ALICE : BOB, STAFF, n % 2 ? 0400 : 0640);
        gate_open(&down);
        gate_pass(&up);
        set_mode(id, BOB, GUESTS, 0660);
        gate_open(&down);
        gate_pass(&up);
    }
    wait_ok(child);
    set_gone(id);
}

// Permission is asked for when the call begins: a sleeper keeps what it had.
static void sleepers_keep_their_permission(char **args)
{
    (void)args;
    int id = set_of(2);
    set_mode(id, ALICE, STAFF, 0600);
    pid_t child = fork();
    if (child == 0) {
        become(ALICE, STAFF);
        does(id, 0, -1, UNDO);
        FAILS(EACCES, op(id, 0, 1, 0));
        _exit(0);
    }
    until_count(id, 0, GETNCNT, 1);
    set_mode(id, BOB, GUESTS, 0600);
    does(id, 0, 1, 0);
    wait_ok(child);
    // And the undo of its own is not asked about.
    SAME(value(id, 0), 1);
    set_gone(id);
}

static void creator_and_owner_control(char **args)
{
    (void)args;
    int id = -1;
    AS(ALICE, STAFF, CHECK(semget(KEY, 2, IPC_CREAT | 0600) >= 0));
    id = semget(KEY, 0, 0);
    CHECK(id >= 0);
    set_mode(id, BOB, GUESTS, 0600);
    struct semid_ds ds = set_stat(id);
    SAME(ds.sem_perm.cuid, ALICE);
    SAME(ds.sem_perm.cgid, STAFF);
    SAME(ds.sem_perm.uid, BOB);
    SAME(ds.sem_perm.gid, GUESTS);
    // The creator counts as an owner.
    AS(ALICE, STAFF, may_read(id); may_alter(id); set_mode(id, BOB, GUESTS, 0640));
    AS(BOB, GUESTS, may_read(id); may_alter(id); set_mode(id, BOB, GUESTS, 0600));
    AS(NOBODY, GUESTS, may_not_control(id));
    AS(ALICE, STAFF, set_gone(id));
    FAILS(EINVAL, semctl(id, 0, GETVAL));
}

static void listing_follows_the_mode(char **args)
{
    (void)args;
    int id = set_of(2);
    set_mode(id, ALICE, STAFF, 0600);
    AS(BOB, GUESTS, {
        struct seminfo info;
        struct semid_ds ds;
        int found = 0, last = semctl(0, 0, SEM_INFO, (union semun){.info = &info});
        for (int index = 0; index <= last; index++) {
            if (semctl(index, 0, SEM_STAT_ANY, (union semun){.buf = &ds}) != id)
                continue;
            found++;
            SAME(ds.sem_nsems, 2);
            SAME(ds.sem_perm.uid, ALICE);
            FAILS(EACCES, semctl(index, 0, SEM_STAT, (union semun){.buf = &ds}));
        }
        SAME(found, 1);
    });
    set_gone(id);
}

static void *tries(void *id)
{
    // The thread alone: what setresuid does for all is another thing.
    CHECK(syscall(SYS_setresuid, -1, BOB, -1) == 0);
    FAILS(EACCES, op(*(int *)id, 0, 1, 0));
    FAILS(EACCES, semctl(*(int *)id, 0, GETVAL));
    return NULL;
}

static void each_thread_has_its_own_ids(char **args)
{
    (void)args;
    int id = set_of(1);
    pthread_t thread;
    for (int n = 0; n < 10; n++) {
        does(id, 0, 1, 0);
        CHECK(pthread_create(&thread, NULL, tries, &id) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        does(id, 0, -1, UNDO);
        SAME(value(id, 0), 0);
    }
    set_gone(id);
}

SCENARIOS({"modes_decide", modes_decide},
          {"ids_at_each_call", ids_at_each_call},
          {"modes_at_each_call", modes_at_each_call},
          {"sleepers_keep_their_permission", sleepers_keep_their_permission},
          {"creator_and_owner_control", creator_and_owner_control},
          {"listing_follows_the_mode", listing_follows_the_mode},
          {"each_thread_has_its_own_ids", each_thread_has_its_own_ids})
