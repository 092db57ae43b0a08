// SPDX-License-Identifier: MIT OR Apache-2.0
// Which calls go where: the functions and the bare system calls, routed keys and local ones, ids
// of the kernel's own that look like routed ones, and both kinds in one listing.
#include "check.h"
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/uio.h>

#define IPC_64 0x0100

// The keys that the runner of the mixed scenarios does not route.
enum { LOCAL = 0x57000000 };

static void *raw_at(int id, const void *address, int flags)
{
    return (void *)syscall(SYS_shmat, id, address, flags);
}

static void bare_system_calls(char **args)
{
    (void)args;
    struct shmid_ds ds;
    int id = (int)syscall(SYS_shmget, KEY, PAGE, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(id >= 0);
    SAME(shmget(KEY, PAGE, 0), id);
    volatile char *p = raw_at(id, NULL, 0), *q = attach(id);
    CHECK(p != (void *)-1);
    p[0] = 9;
    SAME(q[0], 9);
    CHECK(syscall(SYS_shmctl, id, IPC_STAT, &ds) == 0);
    SAME(ds.shm_nattch, 2);
    SAME(nattch(id), 2);
    CHECK(syscall(SYS_shmctl, id, IPC_STAT | IPC_64, &ds) == 0 || errno == EINVAL);
    CHECK(syscall(SYS_shmdt, p) == 0);
    FAILS(EINVAL, syscall(SYS_shmdt, p));
    SAME(nattch(id), 1);
    FAILS(EEXIST, syscall(SYS_shmget, KEY, PAGE, IPC_CREAT | IPC_EXCL | 0600));
    FAILS(ENOENT, syscall(SYS_shmget, KEY + 1, PAGE, 0600));
    FAILS(EINVAL, (intptr_t)raw_at(id, (void *)0x1001, 0));
    CHECK(syscall(SYS_shmctl, id, IPC_RMID, 0) == 0);
    detach(q);
    FAILS(EINVAL, syscall(SYS_shmctl, id, IPC_STAT, &ds));
    // All other calls pass through with all their arguments.
    SAME(syscall(SYS_getpid), getpid());
    char text[6] = "hello", copy[6] = "";
    struct iovec from = {text, 6}, to = {copy, 6};
    SAME(syscall(SYS_process_vm_readv, getpid(), &to, 1, &from, 1, 0), 6);
    CHECK(strcmp(copy, "hello") == 0);
    FAILS(EBADF, syscall(SYS_close, -1));
    FAILS(ENOSYS, syscall(100000));
}

// Whether the kernel itself knows this key. `what`: shm, sem or msg.
static int in_kernel(const char *what, key_t key)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/sysvipc/%s", what);
    // Opened by fopen it would have the routed ones too.
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    FILE *list = fd < 0 ? NULL : fdopen(fd, "r");
    CHECK(list != NULL && fgets(line, sizeof line, list) != NULL);
    int found = 0;
    while (fgets(line, sizeof line, list) != NULL)
        found |= (key_t)strtol(line, NULL, 10) == key;
    fclose(list);
    return found;
}

// Run with KEY routed, LOCAL and `private` not.
static void local_keys_stay_local(char **args)
{
    (void)args;
    int routed = make(KEY, PAGE), local = make(LOCAL, PAGE), own = make(IPC_PRIVATE, PAGE);
    CHECK(routed >= 1 << 30 && local < 1 << 30 && own < 1 << 30);
    CHECK(!in_kernel("shm", KEY) && in_kernel("shm", LOCAL));
    volatile char *p = attach(routed), *q = attach(local), *r = attach(own);
    p[0] = 1, q[0] = 2, r[0] = 3;
    SAME(nattch(routed), 1);
    SAME(nattch(local), 1);
    SAME(stat_of(local).shm_perm.__key, LOCAL);
    pid_t child = fork();
    if (child == 0) {
        SAME(nattch(routed), 2);
        SAME(nattch(local), 2);
        detach(p), detach(q), detach(r);
        _exit(0);
    }
    wait_ok(child);
    detach(p), detach(q), detach(r);
    destroy(routed), destroy(local), destroy(own);

    int set = semget(LOCAL, 1, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(set >= 0 && in_kernel("sem", LOCAL));
    struct sembuf op = {0, 3, 0};
    CHECK(semop(set, &op, 1) == 0);
    SAME(semctl(set, 0, GETVAL), 3);
    CHECK(semctl(set, 0, SETVAL, 5) == 0);
    SAME(semctl(set, 0, GETVAL), 5);
    op.sem_op = -5;
    CHECK(semtimedop(set, &op, 1, &(struct timespec){1, 0}) == 0);
    op.sem_flg = IPC_NOWAIT;
    FAILS(EAGAIN, semop(set, &op, 1));
    struct semid_ds sem;
    CHECK(semctl(set, 0, IPC_STAT, &sem) == 0 && sem.sem_nsems == 1);
    CHECK(semctl(set, 0, IPC_RMID) == 0);

    int queue = msgget(LOCAL, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(queue >= 0 && in_kernel("msg", LOCAL));
    struct {
        long type;
        char text[8];
    } message = {4, "message"};
    CHECK(msgsnd(queue, &message, 8, 0) == 0);
    memset(&message, 0, sizeof message);
    SAME(msgrcv(queue, &message, 8, 4, 0), 8);
    CHECK(message.type == 4 && strcmp(message.text, "message") == 0);
    struct msqid_ds msg;
    CHECK(msgctl(queue, IPC_STAT, &msg) == 0 && msg.msg_qnum == 0);
    CHECK(msgctl(queue, IPC_RMID, NULL) == 0);
    set = (int)syscall(SYS_semget, LOCAL + 1, 1, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(set >= 0 && syscall(SYS_semctl, set, 0, IPC_RMID) == 0);
}

// The id that the kernel gives next to what is made in this IPC namespace. Without this it gets
// to ids with bit 30 set after some 32,768 removals of one slot, or 64 times as many.
static void next_id(const char *kind, int id)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/sys/kernel/%s_next_id", kind);
    FILE *file = fopen(path, "we");
    CHECK(file != NULL && fprintf(file, "%d\n", id) > 0 && fclose(file) == 0);
}

// Run with LOCAL not routed, in an IPC namespace of its own.
static void ids_as_high_as_routed_ones(char **args)
{
    (void)args;
    int routed = make(KEY, PAGE);
    volatile char *p = attach(routed);
    next_id("shm", (1 << 30) + 5);
    int id = make(LOCAL, PAGE);
    SAME(id, (1 << 30) + 5);
    CHECK(in_kernel("shm", LOCAL));
    volatile char *q = attach(id);
    q[0] = 1;
    SAME(nattch(id), 1);
    SAME(shmget(LOCAL, PAGE, 0), id);
    CHECK(syscall(SYS_shmctl, id, IPC_STAT, &(struct shmid_ds){0}) == 0);
    detach(q);
    q = raw_at(id, NULL, SHM_RDONLY);
    CHECK(q != (void *)-1 && q[0] == 1);
    detach(q);
    struct shmid_ds ds = stat_of(id);
    ds.shm_perm.mode = 0640;
    CHECK(shmctl(id, IPC_SET, &ds) == 0 && shmctl(id, SHM_LOCK, NULL) == 0);
    destroy(id);
    FAILS(EINVAL, shmctl(id, IPC_STAT, &ds));
    FAILS(EINVAL, (intptr_t)shmat(id, NULL, 0));

    next_id("sem", (1 << 30) + 7);
    int set = semget(LOCAL, 1, IPC_CREAT | 0600);
    SAME(set, (1 << 30) + 7);
    struct sembuf op = {0, 1, 0};
    CHECK(semop(set, &op, 1) == 0);
    SAME(semctl(set, 0, GETVAL), 1);
    CHECK(semctl(set, 0, IPC_RMID) == 0);
    next_id("msg", (1 << 30) + 9);
    int queue = msgget(LOCAL, IPC_CREAT | 0600);
    SAME(queue, (1 << 30) + 9);
    CHECK(msgsnd(queue, &(struct msgbuf){1, "x"}, 1, 0) == 0);
    SAME(msgrcv(queue, &(struct msgbuf){0, ""}, 1, 0, 0), 1);
    CHECK(msgctl(queue, IPC_RMID, NULL) == 0);

    p[0] = 1;
    SAME(nattch(routed), 1);
    detach(p);
    destroy(routed);
}

static int index_of(int id, int command)
{
    struct shm_info info;
    struct shmid_ds ds;
    int last = shmctl(0, SHM_INFO, (struct shmid_ds *)&info), found = -1;
    CHECK(last >= 0);
    for (int i = 0; i <= last; i++) {
        if (shmctl(i, command, &ds) == id) {
            SAME(found, -1);
            found = i;
            SAME(ds.shm_segsz, stat_of(id).shm_segsz);
            SAME(ds.shm_perm.__key, stat_of(id).shm_perm.__key);
        }
    }
    return found;
}

static struct shm_info totals(void)
{
    struct shm_info info;
    CHECK(shmctl(0, SHM_INFO, (struct shmid_ds *)&info) >= 0);
    return info;
}

// Natively all are the kernel's; routed, every second key is local.
static void listing_shows_all(char **args)
{
    (void)args;
    enum { EACH = 6 };
    int ids[2 * EACH];
    SAME(totals().used_ids, 0);
    unsigned long pages = 0;
    for (int i = 0; i < 2 * EACH; i++) {
        size_t size = (size_t)(i + 1) * PAGE - 100;
        ids[i] = make((i % 2 ? LOCAL : KEY) + i, size);
        pages += (unsigned long)i + 1;
    }
    SAME(totals().used_ids, 2 * EACH);
    SAME(totals().shm_tot, pages);
    for (int i = 0; i < 2 * EACH; i++) {
        CHECK(index_of(ids[i], SHM_STAT) >= 0);
        SAME(index_of(ids[i], SHM_STAT_ANY), index_of(ids[i], SHM_STAT));
        for (int j = 0; j < i; j++)
            CHECK(index_of(ids[i], SHM_STAT) != index_of(ids[j], SHM_STAT));
    }
    // A hole is skipped, the others stay where they are.
    for (int i = 2; i < 4; i++) {
        struct shmid_ds ds;
        int hole = index_of(ids[i], SHM_STAT), other = index_of(ids[i + 2], SHM_STAT);
        destroy(ids[i]);
        FAILS(EINVAL, shmctl(hole, SHM_STAT, &ds));
        FAILS(EINVAL, shmctl(hole, SHM_STAT_ANY, &ds));
        SAME(index_of(ids[i + 2], SHM_STAT), other);
    }
    SAME(totals().used_ids, 2 * EACH - 2);
    // A removed one is listed as long as it lives.
    volatile char *p = attach(ids[0]), *q = attach(ids[1]);
    destroy(ids[0]), destroy(ids[1]);
    SAME(totals().used_ids, 2 * EACH - 2);
    CHECK(index_of(ids[0], SHM_STAT) >= 0 && index_of(ids[1], SHM_STAT) >= 0);
    detach(p), detach(q);
    SAME(totals().used_ids, 2 * EACH - 4);
    for (int i = 4; i < 2 * EACH; i++)
        destroy(ids[i]);
    SAME(totals().used_ids, 0);
    struct shminfo limits;
    CHECK(shmctl(0, IPC_INFO, (struct shmid_ds *)&limits) >= 0);
    SAME(limits.shmmin, 1);
}

// Prints what a program sees of itself: natively and under a library that routes nothing, the
// same.
static void what_it_sees(char **args)
{
    (void)args;
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("descriptor %d\n", fd);
    char line[512];
    FILE *status = fopen("/proc/self/status", "re");
    CHECK(status != NULL);
    while (fgets(line, sizeof line, status) != NULL)
        if (strncmp(line, "Threads", 7) == 0 || strncmp(line, "Sig", 3) == 0)
            if (strncmp(line, "SigQ", 4) != 0)
                fputs(line, stdout);
    fclose(status);
    int id = make(KEY, PAGE);
    CHECK(id < 1 << 30 && in_kernel("shm", KEY));
    attach(id)[0] = 1;
    printf("nattch %ld\n", nattch(id));
    int set = semget(KEY, 1, IPC_CREAT | 0600), queue = msgget(KEY, IPC_CREAT | 0600);
    CHECK(set >= 0 && queue >= 0 && in_kernel("sem", KEY) && in_kernel("msg", KEY));
    CHECK(semctl(set, 0, IPC_RMID) == 0 && msgctl(queue, IPC_RMID, NULL) == 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        printf("in the child %ld\n", nattch(id));
        exit(0);
    }
    wait_ok(child);
    destroy(id);
}

// `ERRNO`: one get of a routed key that fails so, while a local one is as ever.
static void refused(char **args)
{
    FAILS(atoi(args[0]), shmget(KEY, PAGE, IPC_CREAT | 0600));
    CHECK(!in_kernel("shm", KEY));
    int id = make(LOCAL, PAGE);
    attach(id)[0] = 1;
    destroy(id);
}

SCENARIOS({"bare_system_calls", bare_system_calls},
          {"local_keys_stay_local", local_keys_stay_local},
          {"ids_as_high_as_routed_ones", ids_as_high_as_routed_ones},
          {"listing_shows_all", listing_shows_all}, {"what_it_sees", what_it_sees},
          {"refused", refused})
