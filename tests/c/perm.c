// SPDX-License-Identifier: MIT OR Apache-2.0
// Who may do what: the caller's effective ids at the moment of each call decide. Runs as root and
// takes other identities.
#include "check.h"
#include "identity.h"

static void set(int id, uid_t uid, gid_t gid, mode_t mode)
{
    struct shmid_ds ds = {.shm_perm = {.uid = uid, .gid = gid, .mode = mode}};
    CHECK(shmctl(id, IPC_SET, &ds) == 0);
}

static void may_all(int id)
{
    CHECK(shmget(KEY, 0, 0600) == id);
    volatile char *p = attach(id);
    p[0]++;
    detach(p);
    stat_of(id);
}

static void may_read(int id)
{
    struct shmid_ds ds;
    CHECK(shmget(KEY, 0, 0400) == id);
    FAILS(EACCES, shmget(KEY, 0, 0600));
    FAILS(EACCES, (intptr_t)shmat(id, NULL, 0));
    void *p = shmat(id, NULL, SHM_RDONLY);
    CHECK(p != (void *)-1 && shmdt(p) == 0);
    CHECK(shmctl(id, IPC_STAT, &ds) == 0);
}

static void may_nothing(int id)
{
    struct shmid_ds ds;
    FAILS(EACCES, shmget(KEY, 0, 0600));
    FAILS(EACCES, shmget(KEY, 0, 0400));
    FAILS(EACCES, shmget(KEY, PAGE, IPC_CREAT | 0600));
    FAILS(EEXIST, shmget(KEY, PAGE, IPC_CREAT | IPC_EXCL | 0600));
    SAME(shmget(KEY, 0, 0), id); // asks for nothing
    FAILS(EACCES, (intptr_t)shmat(id, NULL, 0));
    FAILS(EACCES, (intptr_t)shmat(id, NULL, SHM_RDONLY));
    FAILS(EACCES, shmctl(id, IPC_STAT, &ds));
}

static void may_not_control(int id)
{
    struct shmid_ds ds = {.shm_perm = {.uid = geteuid(), .mode = 0666}};
    FAILS(EPERM, shmctl(id, IPC_SET, &ds));
    FAILS(EPERM, shmctl(id, IPC_RMID, NULL));
    FAILS(EPERM, shmctl(id, SHM_LOCK, NULL));
    FAILS(EPERM, shmctl(id, SHM_UNLOCK, NULL));
}

static void modes_decide(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    set(id, ALICE, STAFF, 0600);
    AS(ALICE, GUESTS, may_all(id));
    AS(BOB, STAFF, may_nothing(id); may_not_control(id));
    set(id, ALICE, STAFF, 0660);
    AS(BOB, STAFF, may_all(id); may_not_control(id));
    AS(BOB, GUESTS, may_nothing(id));
    set(id, ALICE, STAFF, 0640);
    AS(BOB, STAFF, may_read(id));
    AS(BOB, GUESTS, may_nothing(id));
    set(id, ALICE, STAFF, 0604);
    AS(BOB, GUESTS, may_read(id));
    AS(BOB, STAFF, may_nothing(id)); // a member of the group is not "others"
    set(id, ALICE, STAFF, 0066);
    AS(ALICE, STAFF, may_nothing(id)); // nor is the owner
    AS(BOB, GUESTS, may_all(id));
    set(id, ALICE, STAFF, 0);
    AS(BOB, STAFF, may_nothing(id));
    may_all(id); // root
    destroy(id);
}

static void groups_count(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    set(id, ALICE, STAFF, 0660);
    gid_t groups[] = {GUESTS, 5000, STAFF};
    pid_t child = fork();
    if (child == 0) {
        CHECK(setgroups(3, groups) == 0 && setresgid(GUESTS, GUESTS, GUESTS) == 0);
        CHECK(setresuid(BOB, BOB, BOB) == 0);
        may_all(id);
        _exit(0);
    }
    wait_ok(child);
    child = fork();
    if (child == 0) {
        CHECK(setgroups(2, groups) == 0 && setresgid(GUESTS, GUESTS, GUESTS) == 0);
        CHECK(setresuid(BOB, BOB, BOB) == 0);
        may_nothing(id);
        _exit(0);
    }
    wait_ok(child);
    // Members that come and go while the process runs.
    child = fork();
    if (child == 0) {
        CHECK(setgroups(3, groups) == 0 && setresgid(GUESTS, GUESTS, GUESTS) == 0);
        CHECK(setresuid(BOB, BOB, 0) == 0);
        may_all(id);
        CHECK(setresuid(-1, 0, -1) == 0 && setgroups(0, NULL) == 0 && setresuid(-1, BOB, -1) == 0);
        may_nothing(id);
        CHECK(setresuid(-1, 0, -1) == 0 && setresgid(-1, STAFF, -1) == 0);
        CHECK(setresuid(-1, BOB, -1) == 0);
        may_all(id);
        CHECK(setresuid(-1, 0, -1) == 0 && setresgid(-1, GUESTS, -1) == 0);
        CHECK(setresuid(-1, BOB, -1) == 0);
        may_nothing(id);
        _exit(0);
    }
    wait_ok(child);
    destroy(id);
}

// One process, changing its effective ids between calls, with everything attached before.
static void effective_ids_at_each_call(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    volatile char *p = attach(id);
    may_all(id);
    CHECK(setegid(NOBODY) == 0 && setgroups(0, NULL) == 0 && seteuid(NOBODY) == 0);
    may_nothing(id);
    may_not_control(id);
    p[0] = 1; // what is attached stays
    int own = shmget(KEY + 1, PAGE, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(own >= 0);
    struct shmid_ds ds = stat_of(own);
    SAME(ds.shm_perm.uid, NOBODY);
    SAME(ds.shm_perm.cuid, NOBODY);
    SAME(ds.shm_perm.gid, NOBODY);
    SAME(ds.shm_perm.cgid, NOBODY);
    attach(own)[0] = 1;
    CHECK(seteuid(0) == 0);
    may_all(id);
    destroy(own);
    // For good.
    pid_t child = fork();
    if (child == 0) {
        CHECK(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
        may_nothing(id);
        may_not_control(id);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            may_nothing(id);
            int other = make(KEY + 2, PAGE);
            attach(other)[0] = 1;
            SAME(nattch(id == -1 ? id : other), 1);
            destroy(other);
            CHECK(p[0] == 2);
            detach(p);
            _exit(0);
        }
        wait_ok(grandchild);
        _exit(0);
    }
    wait_ok(child);
    SAME(nattch(id), 1);
    destroy(id);
}

static void *as_bob(void *id)
{
    // The bare system call changes the calling thread only.
    CHECK(syscall(SYS_setresuid, -1, BOB, -1) == 0);
    may_nothing((int)(intptr_t)id);
    return NULL;
}

static void each_thread_has_its_own_ids(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    may_all(id);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, as_bob, (void *)(intptr_t)id) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    may_all(id);
    destroy(id);
}

static void creator_and_owner_control(char **args)
{
    (void)args;
    AS(ALICE, STAFF, make(KEY, PAGE));
    int id = shmget(KEY, 0, 0);
    AS(BOB, STAFF, may_not_control(id));
    AS(ALICE, STAFF, set(id, BOB, GUESTS, 0600));
    struct shmid_ds ds = stat_of(id);
    SAME(ds.shm_perm.uid, BOB);
    SAME(ds.shm_perm.gid, GUESTS);
    SAME(ds.shm_perm.cuid, ALICE);
    SAME(ds.shm_perm.cgid, STAFF);
    // Creator and owner have the owner's bits, their groups the group's.
    AS(BOB, 5000, may_all(id));
    AS(ALICE, 5000, may_all(id));
    AS(BOB, 5000, set(id, BOB, GUESTS, 0060));
    AS(NOBODY, GUESTS, may_all(id));
    AS(NOBODY, STAFF, may_all(id));
    AS(NOBODY, 5000, may_nothing(id));
    AS(ALICE, STAFF, may_nothing(id));
    // The creator takes it back, and removes it.
    AS(ALICE, STAFF, set(id, ALICE, STAFF, 0600));
    AS(BOB, GUESTS, may_nothing(id); may_not_control(id));
    AS(ALICE, STAFF, set(id, BOB, GUESTS, 0600));
    AS(ALICE, STAFF, destroy(id));
    FAILS(EINVAL, shmctl(id, IPC_STAT, &ds));
}

static void execute_permission(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    set(id, ALICE, STAFF, 0600);
    AS(ALICE, STAFF, FAILS(EACCES, (intptr_t)shmat(id, NULL, SHM_EXEC)));
    set(id, ALICE, STAFF, 0700);
    AS(ALICE, STAFF, CHECK(shmat(id, NULL, SHM_EXEC) != (void *)-1));
    destroy(id);
}

static void read_only_stays_read_only(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    attach(id)[0] = 'a';
    set(id, ALICE, STAFF, 0444);
    AS(BOB, GUESTS, {
        char *p = shmat(id, NULL, SHM_RDONLY);
        CHECK(p != (void *)-1 && p[0] == 'a');
        FAILS(EACCES, mprotect(p, PAGE, PROT_READ | PROT_WRITE));
        pid_t writer = fork();
        if (writer == 0) {
            setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
            *(volatile char *)p = 'b';
            _exit(0);
        }
        int status;
        SAME(waitpid(writer, &status, 0), writer);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    });
    // Whoever may write but asks for reading gets no more than that.
    char *p = shmat(id, NULL, SHM_RDONLY);
    FAILS(EACCES, mprotect(p, PAGE, PROT_READ | PROT_WRITE));
    CHECK(p[0] == 'a');
    destroy(id);
}

static void listing_follows_the_mode(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    set(id, ALICE, STAFF, 0600);
    AS(BOB, GUESTS, {
        struct shm_info info;
        struct shmid_ds ds;
        int last = shmctl(0, SHM_INFO, (struct shmid_ds *)&info), seen = 0;
        CHECK(last >= 0);
        for (int i = 0; i <= last; i++) {
            if (shmctl(i, SHM_STAT_ANY, &ds) == id) {
                SAME(ds.shm_perm.uid, ALICE);
                FAILS(EACCES, shmctl(i, SHM_STAT, &ds));
                seen++;
            }
        }
        SAME(seen, 1);
    });
    destroy(id);
}

static void lock_needs_a_limit(char **args)
{
    (void)args;
    AS(ALICE, STAFF, {
        int id = make(KEY, PAGE);
        CHECK(shmctl(id, SHM_LOCK, NULL) == 0);
        CHECK(stat_of(id).shm_perm.mode & SHM_LOCKED);
        CHECK(shmctl(id, SHM_UNLOCK, NULL) == 0);
        CHECK((stat_of(id).shm_perm.mode & SHM_LOCKED) == 0);
        CHECK(setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){0, 0}) == 0);
        FAILS(EPERM, shmctl(id, SHM_LOCK, NULL));
        destroy(id);
    });
}

SCENARIOS({"modes_decide", modes_decide}, {"groups_count", groups_count},
          {"effective_ids_at_each_call", effective_ids_at_each_call},
          {"each_thread_has_its_own_ids", each_thread_has_its_own_ids},
          {"creator_and_owner_control", creator_and_owner_control},
          {"execute_permission", execute_permission},
          {"read_only_stays_read_only", read_only_stays_read_only},
          {"listing_follows_the_mode", listing_follows_the_mode},
          {"lock_needs_a_limit", lock_needs_a_limit})
