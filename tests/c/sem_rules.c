// SPDX-License-Identifier: MIT OR Apache-2.0
// What the calls on semaphore sets accept, change and answer, for one process that never sleeps.
#include "sem.h"

static int limit(int which)
{
    int limits[4];
    FILE *file = fopen("/proc/sys/kernel/sem", "re");
    CHECK(file != NULL);
    SAME(fscanf(file, "%d %d %d %d", &limits[0], &limits[1], &limits[2], &limits[3]), 4);
    fclose(file);
    return limits[which];
}

enum { SEMMSL, SEMMNS, SEMOPM, SEMMNI };

static void get_rules(char **args)
{
    (void)args;
    FAILS(ENOENT, semget(KEY, 1, 0600));
    FAILS(ENOENT, semget(KEY, 0, 0));
    // The number is looked at before anything else.
    FAILS(EINVAL, semget(KEY, -1, 0600));
    FAILS(EINVAL, semget(KEY, limit(SEMMSL) + 1, 0600));
    FAILS(EINVAL, semget(KEY, -1, IPC_CREAT | 0600));
    FAILS(EINVAL, semget(KEY, 0, IPC_CREAT | 0600));
    FAILS(EINVAL, semget(IPC_PRIVATE, 0, 0600));
    FAILS(EINVAL, semget(IPC_PRIVATE, -1, 0600));
    FAILS(EINVAL, semget(IPC_PRIVATE, limit(SEMMSL) + 1, 0600));
    int id = semget(KEY, 3, IPC_CREAT | 0640);
    CHECK(id >= 0);
    SAME(semget(KEY, 3, 0), id);
    SAME(semget(KEY, 0, 0), id);
    SAME(semget(KEY, 2, IPC_CREAT | 0600), id);
    SAME(semget(KEY, 3, IPC_EXCL), id);
    FAILS(EINVAL, semget(KEY, 4, 0));
    FAILS(EINVAL, semget(KEY, 4, IPC_CREAT | 0600));
    FAILS(EINVAL, semget(KEY, -1, 0));
    FAILS(EINVAL, semget(KEY, -1, IPC_CREAT | IPC_EXCL | 0600));
    FAILS(EINVAL, semget(KEY, limit(SEMMSL) + 1, IPC_CREAT | IPC_EXCL | 0600));
    FAILS(EEXIST, semget(KEY, 3, IPC_CREAT | IPC_EXCL | 0600));
    FAILS(EEXIST, semget(KEY, 4, IPC_CREAT | IPC_EXCL | 0600));
    FAILS(EEXIST, semget(KEY, 0, IPC_CREAT | IPC_EXCL | 0600));
    struct semid_ds ds = set_stat(id);
    SAME(ds.sem_perm.__key, KEY);
    SAME(ds.sem_perm.mode, 0640);
    SAME(ds.sem_perm.uid, geteuid());
    SAME(ds.sem_perm.cuid, geteuid());
    SAME(ds.sem_perm.gid, getegid());
    SAME(ds.sem_perm.cgid, getegid());
    SAME(ds.sem_nsems, 3);
    SAME(ds.sem_otime, 0);
    CHECK(ds.sem_ctime > 0 && ds.sem_ctime <= time(NULL));
    for (int sem = 0; sem < 3; sem++) {
        SAME(value(id, sem), 0);
        SAME(semctl(id, sem, GETPID), 0);
        SAME(semctl(id, sem, GETNCNT), 0);
        SAME(semctl(id, sem, GETZCNT), 0);
    }
    set_gone(id);
    FAILS(ENOENT, semget(KEY, 3, 0));
    int again = semget(KEY, 1, IPC_CREAT | IPC_EXCL | 0);
    CHECK(again >= 0 && again != id);
    SAME(set_stat(again).sem_perm.mode, 0);
    set_gone(again);
}

static void private_sets(char **args)
{
    (void)args;
    int one = semget(IPC_PRIVATE, 1, 0600), other = semget(IPC_PRIVATE, 2, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(one >= 0 && other >= 0 && one != other);
    SAME(set_stat(one).sem_perm.__key, 0);
    does(one, 0, 2, 0);
    struct gate told = gate_new();
    pid_t child = asleep_in(one, 0, -3, 0, 0, &told, 'c');
    SAME(value(other, 0), 0);
    does(one, 0, 1, 0);
    SAME(told_by(&told), 'c');
    wait_ok(child);
    SAME(value(one, 0), 0);
    SAME(semctl(one, 0, GETPID), child);
    set_gone(one);
    set_gone(other);
}

// The largest set, and its last semaphore.
static void largest_set(char **args)
{
    (void)args;
    int most = limit(SEMMSL);
    int id = set_of(most);
    SAME(set_stat(id).sem_nsems, most);
    does(id, most - 1, 7, 0);
    SAME(value(id, most - 1), 7);
    FAILS(EINVAL, semctl(id, most, GETVAL));
    FAILS(EFBIG, op(id, most, 1, 0));
    unsigned short *all = calloc((size_t)most + 1, sizeof *all);
    all[most] = 0x5a5a;
    CHECK(semctl(id, 0, GETALL, (union semun){.array = all}) == 0);
    for (int sem = 0; sem < most; sem++) {
        SAME(all[sem], sem == most - 1 ? 7 : 0);
        all[sem] = (unsigned short)(sem % (SEMVMX + 1));
    }
    SAME(all[most], 0x5a5a);
    CHECK(semctl(id, 0, SETALL, (union semun){.array = all}) == 0);
    for (int sem = 0; sem < most; sem += 97)
        SAME(value(id, sem), sem % (SEMVMX + 1));
    free(all);
    set_gone(id);
}

// A call with as many operations as may be, and one more.
static void most_operations(char **args)
{
    (void)args;
    int most = limit(SEMOPM);
    struct sembuf *ops = calloc((size_t)most + 1, sizeof *ops);
    int id = set_of(most);
    for (int n = 0; n <= most; n++)
        ops[n] = (struct sembuf){(unsigned short)(n % most), 1, 0};
    CHECK(semop(id, ops, (size_t)most) == 0);
    for (int sem = 0; sem < most; sem++)
        SAME(value(id, sem), 1);
    FAILS(E2BIG, semop(id, ops, (size_t)most + 1));
    // Whatever the memory.
    FAILS(E2BIG, semop(id, NULL, (size_t)most + 1));
    FAILS(E2BIG, semop(-1, ops, (size_t)most + 1));
    // All or nothing, when it is the last that cannot be.
    for (int n = 0; n < most; n++)
        ops[n] = (struct sembuf){(unsigned short)n, (short)(n == most - 1 ? -2 : 5), NOWAIT};
    FAILS(EAGAIN, semop(id, ops, (size_t)most));
    for (int sem = 0; sem < most; sem++)
        SAME(value(id, sem), 1);
    // Every one on the same semaphore, with undo.
    for (int n = 0; n < most; n++)
        ops[n] = (struct sembuf){3, (short)(n % 2 == 0 ? 3 : -2), UNDO};
    pid_t child = fork();
    if (child == 0) {
        CHECK(semop(id, ops, (size_t)most) == 0);
        SAME(value(id, 3), 1 + most / 2);
        _exit(0);
    }
    wait_ok(child);
    SAME(value(id, 3), 1);
    // One that sleeps with that many, and is woken.
    for (int n = 0; n < most; n++)
        ops[n] = (struct sembuf){(unsigned short)n, -1, UNDO};
    put(id, most - 1, 0);
    child = sleeper(id, ops, (size_t)most, 0, NULL, 0);
    until_count(id, most - 1, GETNCNT, 1);
    does(id, most - 1, 1, 0);
    wait_ok(child);
    for (int sem = 0; sem < most; sem++)
        SAME(value(id, sem), 1);
    free(ops);
    set_gone(id);
}

static void operations_are_one(char **args)
{
    (void)args;
    int id = set_of(4);
    CHECK(semop(id, OPS({0, 2, 0}, {1, 3, 0}, {3, SEMVMX, 0})) == 0);
    SAME(value(id, 0), 2);
    SAME(value(id, 1), 3);
    SAME(value(id, 2), 0);
    SAME(value(id, 3), SEMVMX);
    SAME(semctl(id, 0, GETPID), getpid());
    SAME(semctl(id, 2, GETPID), 0);
    // None happens if one cannot.
    FAILS(EAGAIN, semop(id, OPS({0, -1, NOWAIT}, {1, -4, NOWAIT})));
    FAILS(EAGAIN, semop(id, OPS({0, -1, 0}, {1, 0, NOWAIT})));
    FAILS(ERANGE, semop(id, OPS({0, -1, 0}, {1, 1, 0}, {3, 1, 0})));
    FAILS(EFBIG, semop(id, OPS({0, -1, 0}, {4, 1, 0})));
    SAME(value(id, 0), 2);
    SAME(value(id, 1), 3);
    // Which one fails is decided in the order of the array.
    FAILS(ERANGE, semop(id, OPS({3, 1, 0}, {0, -3, NOWAIT})));
    FAILS(EAGAIN, semop(id, OPS({0, -3, NOWAIT}, {3, 1, 0})));
    // A wait for zero changes the pid too, and nothing else.
    CHECK(semop(id, OPS({2, 0, 0})) == 0);
    SAME(semctl(id, 2, GETPID), getpid());
    SAME(value(id, 2), 0);
    // Several on one semaphore: each sees what those before it did.
    CHECK(semop(id, OPS({2, 0, 0}, {2, 5, 0}, {2, -3, 0})) == 0);
    SAME(value(id, 2), 2);
    CHECK(semop(id, OPS({2, -2, 0}, {2, 0, 0}, {2, 1, 0})) == 0);
    SAME(value(id, 2), 1);
    FAILS(EAGAIN, semop(id, OPS({2, 1, 0}, {2, 0, NOWAIT})));
    FAILS(EAGAIN, semop(id, OPS({2, -2, NOWAIT}, {2, 5, 0})));
    FAILS(ERANGE, semop(id, OPS({3, 1, 0}, {3, -1, 0})));
    CHECK(semop(id, OPS({3, -1, 0}, {3, 1, 0})) == 0);
    SAME(value(id, 3), SEMVMX);
    SAME(value(id, 2), 1);
    // Two locks taken together, the classical use.
    CHECK(semop(id, OPS({0, -1, UNDO}, {1, -1, UNDO})) == 0);
    CHECK(semop(id, OPS({0, 1, UNDO}, {1, 1, UNDO})) == 0);
    set_gone(id);
}

static void operation_errors(char **args)
{
    (void)args;
    int id = set_of(2);
    struct sembuf *nowhere = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(nowhere != MAP_FAILED);
    struct sembuf ops[2] = {{0, 1, 0}, {2, 1, 0}};
    FAILS(EINVAL, semop(id, ops, 0));
    FAILS(EINVAL, semop(id, NULL, 0));
    FAILS(EINVAL, semop(-1, ops, 1));
    FAILS(EINVAL, semop(-1, ops, 0));
    FAILS(EFAULT, semop(id, NULL, 1));
    FAILS(EFAULT, semop(id, nowhere, 1));
    FAILS(EFAULT, semop(id, (struct sembuf *)-4L, 2));
    FAILS(EFAULT, semop(12345, nowhere, 1));
    FAILS(EINVAL, semop(12345, ops, 1));
    FAILS(EFBIG, semop(id, ops, 2));
    FAILS(EFBIG, op(id, 2, 0, NOWAIT));
    FAILS(EFBIG, op(id, 65535, -1, NOWAIT | UNDO));
    FAILS(ERANGE, semop(id, OPS({0, SEMVMX, 0}, {0, 1, 0})));
    FAILS(EAGAIN, op(id, 0, -1, NOWAIT));
    FAILS(EAGAIN, op(id, 0, -32768, NOWAIT));
    does(id, 0, SEMVMX, 0);
    FAILS(ERANGE, op(id, 0, 1, 0));
    FAILS(ERANGE, op(id, 0, SEMVMX, 0));
    FAILS(EAGAIN, op(id, 0, -32768, NOWAIT));
    FAILS(EAGAIN, op(id, 0, 0, NOWAIT));
    does(id, 0, -SEMVMX, 0);
    SAME(value(id, 0), 0);
    // Half of the operations where nothing is.
    char *edge = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(edge != MAP_FAILED && mprotect(edge + PAGE, PAGE, PROT_NONE) == 0);
    struct sembuf *last = (struct sembuf *)(edge + PAGE) - 1;
    *last = (struct sembuf){1, 1, 0};
    CHECK(semop(id, last, 1) == 0);
    SAME(value(id, 1), 1);
    FAILS(EFAULT, semop(id, last, 2));
    SAME(value(id, 1), 1);
    // Memory that can only be read is good enough.
    CHECK(mprotect(edge, PAGE, PROT_READ) == 0);
    CHECK(semop(id, last, 1) == 0);
    SAME(value(id, 1), 2);
    set_gone(id);
    FAILS(EINVAL, semop(id, ops, 1));
    FAILS(EINVAL, semop(id, ops, 0));
}

static void undo_errors(char **args)
{
    (void)args;
    int id = set_of(2);
    struct sembuf ops[2] = {{0, 1, UNDO}, {2, 1, UNDO}};
    FAILS(EFBIG, semop(id, ops, 2));
    FAILS(EINVAL, semop(12345, ops, 1));
    FAILS(EINVAL, semop(-1, ops, 1));
    // The adjustment has a range as well: two's complement of 16 bits.
    does(id, 0, SEMVMX, UNDO);
    put(id, 1, 0);
    does(id, 0, -SEMVMX, 0);
    does(id, 0, 1, UNDO);
    FAILS(ERANGE, op(id, 0, 1, UNDO));
    does(id, 0, 1, 0);
    SAME(value(id, 0), 2);
    does(id, 0, -2, UNDO);
    put(id, 0, 0);
    put(id, 0, SEMVMX);
    does(id, 0, -SEMVMX, UNDO);
    does(id, 0, 2, 0);
    FAILS(ERANGE, op(id, 0, -1, UNDO));
    FAILS(ERANGE, op(id, 0, -1, UNDO | NOWAIT));
    // Waiting comes first.
    FAILS(EAGAIN, op(id, 0, -3, UNDO | NOWAIT));
    SAME(value(id, 0), 2);
    set_gone(id);
}

static void control_rules(char **args)
{
    (void)args;
    int id = set_of(3);
    union semun bad = {.array = (unsigned short *)-8L};
    for (int n = 0; n < 4; n++) {
        static const int commands[] = {GETVAL, GETPID, GETNCNT, GETZCNT};
        FAILS(EINVAL, semctl(id, 3, commands[n]));
        FAILS(EINVAL, semctl(id, -1, commands[n]));
        FAILS(EINVAL, semctl(-1, 0, commands[n]));
        FAILS(EINVAL, semctl(12345, 0, commands[n]));
    }
    FAILS(ERANGE, semctl(id, 0, SETVAL, (union semun){.val = -1}));
    FAILS(ERANGE, semctl(id, 0, SETVAL, (union semun){.val = SEMVMX + 1}));
    FAILS(EINVAL, semctl(id, 3, SETVAL, (union semun){.val = 1}));
    FAILS(EINVAL, semctl(id, -1, SETVAL, (union semun){.val = 1}));
    FAILS(EINVAL, semctl(12345, 0, SETVAL, (union semun){.val = 1}));
    FAILS(EINVAL, semctl(-1, 0, SETVAL, (union semun){.val = 1}));
    // Which of two errors.
    FAILS(ERANGE, semctl(id, 3, SETVAL, (union semun){.val = -1}));
    FAILS(ERANGE, semctl(12345, 0, SETVAL, (union semun){.val = -1}));
    FAILS(EINVAL, semctl(-1, 0, SETVAL, (union semun){.val = -1}));
    put(id, 1, SEMVMX);
    SAME(value(id, 1), SEMVMX);
    SAME(semctl(id, 1, GETPID), getpid());
    SAME(semctl(id, 0, GETPID), 0);

    unsigned short all[4] = {9, 9, 9, 0x5a5a};
    // The number of a semaphore means nothing here.
    CHECK(semctl(id, 77, GETALL, (union semun){.array = all}) == 0);
    CHECK(all[0] == 0 && all[1] == SEMVMX && all[2] == 0 && all[3] == 0x5a5a);
    FAILS(EFAULT, semctl(id, 0, GETALL, bad));
    FAILS(EFAULT, semctl(id, 0, GETALL, (union semun){.array = NULL}));
    FAILS(EINVAL, semctl(12345, 0, GETALL, bad));
    FAILS(EFAULT, semctl(id, 0, SETALL, bad));
    FAILS(EFAULT, semctl(id, 0, SETALL, (union semun){.array = NULL}));
    FAILS(EINVAL, semctl(12345, 0, SETALL, bad));
    all[0] = 3, all[1] = 2, all[2] = SEMVMX + 1;
    FAILS(ERANGE, semctl(id, 0, SETALL, (union semun){.array = all}));
    SAME(value(id, 0), 0);
    SAME(semctl(id, 0, GETPID), 0);
    all[2] = 1;
    CHECK(semctl(id, -5, SETALL, (union semun){.array = all}) == 0);
    for (int sem = 0; sem < 3; sem++) {
        SAME(value(id, sem), 3 - sem);
        SAME(semctl(id, sem, GETPID), getpid());
    }
    static const int unknown[] = {-1, 4, 5, 9, 10, 21, 22, 99, 0x100, 1 << 30};
    for (size_t n = 0; n < sizeof unknown / sizeof unknown[0]; n++) {
        FAILS(EINVAL, semctl(id, 0, unknown[n], bad));
        FAILS(EINVAL, semctl(-1, 0, unknown[n], bad));
    }
    FAILS(EFAULT, semctl(id, 0, IPC_STAT, bad));
    FAILS(EINVAL, semctl(12345, 0, IPC_STAT, bad));
    FAILS(EINVAL, semctl(-1, 0, IPC_STAT, bad));
    FAILS(EFAULT, semctl(id, 0, IPC_SET, bad));
    FAILS(EFAULT, semctl(12345, 0, IPC_SET, bad));
    FAILS(EINVAL, semctl(-1, 0, IPC_SET, bad));
    FAILS(EFAULT, semctl(id, 0, IPC_INFO, bad));
    FAILS(EFAULT, semctl(id, 0, SEM_INFO, bad));
    FAILS(EINVAL, semctl(12345, 0, IPC_RMID));
    FAILS(EINVAL, semctl(-1, 0, IPC_RMID));
    CHECK(semctl(id, 99, IPC_RMID, bad) == 0);
    FAILS(EINVAL, semctl(id, 0, IPC_RMID));
    FAILS(EINVAL, semctl(id, 0, GETVAL));
    FAILS(EINVAL, semctl(id, 0, IPC_STAT, bad));
}

static void owner_and_mode(char **args)
{
    (void)args;
    int id = set_of(1);
    struct semid_ds ds = {.sem_perm = {.uid = geteuid(), .gid = getegid(), .mode = 07777},
                          .sem_nsems = 99, .sem_otime = 7};
    CHECK(semctl(id, 0, IPC_SET, (union semun){.buf = &ds}) == 0);
    ds = set_stat(id);
    SAME(ds.sem_perm.mode, 0777);
    SAME(ds.sem_nsems, 1);
    SAME(ds.sem_otime, 0);
    ds.sem_perm.uid = (uid_t)-1;
    FAILS(EINVAL, semctl(id, 0, IPC_SET, (union semun){.buf = &ds}));
    ds.sem_perm.uid = geteuid();
    ds.sem_perm.gid = (gid_t)-1;
    FAILS(EINVAL, semctl(id, 0, IPC_SET, (union semun){.buf = &ds}));
    SAME(set_stat(id).sem_perm.uid, geteuid());
    set_gone(id);
}

static void times(char **args)
{
    (void)args;
    int id = set_of(2);
    time_t born = set_stat(id).sem_ctime;
    next_second();
    FAILS(EAGAIN, op(id, 0, -1, NOWAIT));
    FAILS(ERANGE, semctl(id, 0, SETVAL, (union semun){.val = -1}));
    struct semid_ds ds = set_stat(id);
    SAME(ds.sem_otime, 0);
    SAME(ds.sem_ctime, born);
    does(id, 0, 0, 0);
    ds = set_stat(id);
    CHECK(ds.sem_otime > born && ds.sem_otime <= time(NULL));
    SAME(ds.sem_ctime, born);
    time_t used = ds.sem_otime;
    next_second();
    put(id, 0, 1);
    ds = set_stat(id);
    SAME(ds.sem_otime, used);
    CHECK(ds.sem_ctime > used);
    time_t changed = ds.sem_ctime;
    next_second();
    unsigned short all[2] = {1, 1};
    CHECK(semctl(id, 0, SETALL, (union semun){.array = all}) == 0);
    ds = set_stat(id);
    SAME(ds.sem_otime, used);
    CHECK(ds.sem_ctime > changed);
    changed = ds.sem_ctime;
    next_second();
    does(id, 1, -1, 0);
    ds = set_stat(id);
    CHECK(ds.sem_otime > changed);
    SAME(ds.sem_ctime, changed);
    used = ds.sem_otime;
    next_second();
    CHECK(semctl(id, 0, IPC_SET, (union semun){.buf = &ds}) == 0);
    ds = set_stat(id);
    SAME(ds.sem_otime, used);
    CHECK(ds.sem_ctime > used);
    // What SETVAL does for a sleeper is an operation; and so is undo.
    put(id, 0, 0);
    pid_t child = asleep_in(id, 0, -1, UNDO, 0, NULL, 0);
    next_second();
    put(id, 0, 1);
    wait_ok(child);
    ds = set_stat(id);
    CHECK(ds.sem_otime > used && ds.sem_otime >= ds.sem_ctime);
    set_gone(id);
}

static void information(char **args)
{
    (void)args;
    struct seminfo info, before;
    memset(&before, 0, sizeof before);
    CHECK(semctl(0, 0, SEM_INFO, (union semun){.info = &before}) >= 0);
    int first = set_of(5), second = semget(IPC_PRIVATE, 7, 0600);
    CHECK(second >= 0);
    memset(&info, 0, sizeof info);
    int last = semctl(0, 0, IPC_INFO, (union semun){.info = &info});
    CHECK(last >= 1);
    SAME(info.semmsl, limit(SEMMSL));
    SAME(info.semmns, limit(SEMMNS));
    SAME(info.semopm, limit(SEMOPM));
    SAME(info.semmni, limit(SEMMNI));
    SAME(info.semmap, limit(SEMMNS));
    SAME(info.semmnu, limit(SEMMNS));
    SAME(info.semume, limit(SEMOPM));
    SAME(info.semusz, 20);
    SAME(info.semvmx, SEMVMX);
    SAME(info.semaem, SEMVMX);
    memset(&info, 0, sizeof info);
    // The id and the number mean nothing.
    SAME(semctl(99, -4, SEM_INFO, (union semun){.info = &info}), last);
    SAME(info.semusz, before.semusz + 2);
    SAME(info.semaem, before.semaem + 12);
    FAILS(EINVAL, semctl(-1, 0, SEM_INFO, (union semun){.info = &info}));
    int found = 0;
    for (int index = 0; index <= last; index++) {
        struct semid_ds ds, any;
        memset(&ds, 0, sizeof ds);
        memset(&any, 0, sizeof any);
        int id = semctl(index, 0, SEM_STAT, (union semun){.buf = &ds});
        if (id < 0) {
            SAME(errno, EINVAL);
            continue;
        }
        SAME(semctl(index, 0, SEM_STAT_ANY, (union semun){.buf = &any}), id);
        SAME(ds.sem_nsems, any.sem_nsems);
        SAME(ds.sem_perm.__key, any.sem_perm.__key);
        if (id == first) {
            found++;
            SAME(ds.sem_nsems, 5);
            SAME(ds.sem_perm.__key, KEY);
        } else if (id == second) {
            found++;
            SAME(ds.sem_nsems, 7);
            SAME(ds.sem_perm.__key, 0);
        }
    }
    SAME(found, 2);
    set_gone(first);
    set_gone(second);
    CHECK(semctl(0, 0, SEM_INFO, (union semun){.info = &info}) >= 0);
    SAME(info.semusz, before.semusz);
    SAME(info.semaem, before.semaem);
}

static void raw_calls(char **args)
{
    (void)args;
    int id = (int)syscall(SYS_semget, KEY, 2, IPC_CREAT | 0600);
    CHECK(id >= 0);
    SAME(semget(KEY, 2, 0), id);
    struct sembuf up = {1, 3, 0}, down = {1, -4, 0};
    struct timespec soon = {0, 1000000}, none = {0, 0};
    CHECK(syscall(SYS_semop, id, &up, 1UL) == 0);
    SAME(syscall(SYS_semctl, id, 1, GETVAL, 0), 3);
    CHECK(syscall(SYS_semtimedop, id, &up, 1UL, &soon) == 0);
    CHECK(syscall(SYS_semtimedop, id, &up, 1UL, NULL) == 0);
    SAME(syscall(SYS_semctl, id, 1, GETVAL, 0), 9);
    CHECK(syscall(SYS_semctl, id, 1, SETVAL, 2) == 0);
    FAILS(EAGAIN, syscall(SYS_semtimedop, id, &down, 1UL, &soon));
    FAILS(EAGAIN, syscall(SYS_semtimedop, id, &down, 1UL, &none));
    FAILS(EFAULT, syscall(SYS_semtimedop, id, &down, 1UL, -8L));
    unsigned short all[2];
    CHECK(syscall(SYS_semctl, id, 0, GETALL, all) == 0);
    SAME(all[1], 2);
    struct semid_ds ds;
    CHECK(syscall(SYS_semctl, id, 0, IPC_STAT, &ds) == 0);
    SAME(ds.sem_nsems, 2);
    CHECK(syscall(SYS_semctl, id, 0, IPC_RMID, 0) == 0);
    FAILS(EINVAL, syscall(SYS_semop, id, &up, 1UL));
}

// errno is left alone by what succeeds, and so is the mask of signals.
static void errno_and_mask_are_kept(char **args)
{
    (void)args;
    sigset_t before, after;
    // The C library sets those bytes only that the kernel knows.
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    sigaddset(&before, SIGUSR2);
    CHECK(sigprocmask(SIG_SETMASK, &before, NULL) == 0);
    int id = set_of(2);
    unsigned short all[2];
    struct semid_ds ds;
    errno = 4321;
    semget(KEY, 0, 0);
    semop(id, OPS({0, 1, UNDO}));
    semop(id, OPS({0, -1, UNDO}, {1, 0, 0}));
    semtimedop(id, OPS({0, 1, 0}), &(struct timespec){1, 0});
    semctl(id, 0, SETVAL, (union semun){.val = 3});
    semctl(id, 0, GETVAL);
    semctl(id, 0, GETPID);
    semctl(id, 0, GETALL, (union semun){.array = all});
    semctl(id, 0, SETALL, (union semun){.array = all});
    semctl(id, 0, IPC_STAT, (union semun){.buf = &ds});
    SAME(errno, 4321);
    pid_t child = fork();
    if (child == 0) {
        errno = 4321;
        semop(id, OPS({1, -1, 0}));
        SAME(errno, 4321);
        CHECK(sigprocmask(SIG_BLOCK, NULL, &after) == 0);
        CHECK(memcmp(&before, &after, sizeof before) == 0);
        _exit(0);
    }
    until_count(id, 1, GETNCNT, 1);
    does(id, 1, 1, 0);
    wait_ok(child);
    CHECK(semop(id, OPS({0, -4, NOWAIT})) != 0);
    CHECK(sigprocmask(SIG_BLOCK, NULL, &after) == 0);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    set_gone(id);
}

static void *counts(void *id)
{
    for (int n = 0; n < 5000; n++) {
        does(*(int *)id, 0, 1, 0);
        CHECK(semop(*(int *)id, OPS({0, -1, UNDO}, {1, 1, 0})) == 0);
        does(*(int *)id, 2, 1, UNDO);
    }
    return NULL;
}

static void threads_count_together(char **args)
{
    (void)args;
    int id = set_of(3);
    pthread_t threads[4];
    for (int n = 0; n < 4; n++)
        CHECK(pthread_create(&threads[n], NULL, counts, &id) == 0);
    for (int n = 0; n < 4; n++)
        CHECK(pthread_join(threads[n], NULL) == 0);
    SAME(value(id, 0), 0);
    SAME(value(id, 1), 20000);
    SAME(value(id, 2), 20000);
    set_gone(id);
}

SCENARIOS({"get_rules", get_rules},
          {"private_sets", private_sets},
          {"largest_set", largest_set},
          {"most_operations", most_operations},
          {"operations_are_one", operations_are_one},
          {"operation_errors", operation_errors},
          {"undo_errors", undo_errors},
          {"control_rules", control_rules},
          {"owner_and_mode", owner_and_mode},
          {"times", times},
          {"information", information},
          {"raw_calls", raw_calls},
          {"errno_and_mask_are_kept", errno_and_mask_are_kept},
          {"threads_count_together", threads_count_together})
