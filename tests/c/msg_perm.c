// SPDX-License-Identifier: MIT OR Apache-2.0
// Who may do what to a message queue: the caller's effective ids at each call. Runs as root and
// takes other identities.
#include "msg.h"
#include "identity.h"

static void set_mode(int id, uid_t uid, gid_t gid, mode_t mode)
{
    struct msqid_ds ds = {.msg_perm = {.uid = uid, .gid = gid, .mode = mode},
                          .msg_qbytes = queue_stat(id).msg_qbytes};
    CHECK(msgctl(id, IPC_SET, &ds) == 0);
}

static void may_read(int id)
{
    SAME(msgget(KEY, 0400), id);
    RECEIVES(id, 0, COPY, 5, "five");
    NOTHING(id, 7, 0);
    FAILS(E2BIG, take(id, 1, 0, 0));
    queue_stat(id);
    FAILS(EFAULT, msgctl(id, IPC_STAT, NULL));
}

static void may_not_read(int id)
{
    struct msqid_ds ds;
    FAILS(EACCES, msgget(KEY, 0400));
    FAILS(EACCES, take(id, ROOM, 0, 0));
    FAILS(EACCES, take(id, ROOM, 0, NOWAIT));
    FAILS(EACCES, take(id, 1, 7, NOWAIT));
    FAILS(EACCES, take(id, ROOM, 0, NOWAIT | COPY));
    FAILS(EACCES, msgrcv(id, NULL, 5, 0, 0));
    FAILS(EINVAL, msgrcv(id, NULL, (size_t)-1, 0, 0));
    FAILS(EINVAL, take(id, ROOM, 0, COPY));
    FAILS(EACCES, msgctl(id, IPC_STAT, &ds));
    FAILS(EACCES, msgctl(id, IPC_STAT, NULL));
}

static void may_write(int id)
{
    SAME(msgget(KEY, 0200), id);
    CHECK(put(id, 99, "more", NOWAIT) == 0);
    FAILS(EFAULT, msgsnd(id, NULL, 4, NOWAIT));
}

static void may_not_write(int id)
{
    FAILS(EACCES, msgget(KEY, 0200));
    FAILS(EACCES, msgget(KEY, 0600));
    FAILS(EACCES, put(id, 99, "x", 0));
    FAILS(EACCES, put(id, 99, "x", NOWAIT));
    FAILS(EACCES, put_bytes(id, 99, 5000, 1, NOWAIT));
    FAILS(EINVAL, put(id, 0, "x", 0));
    FAILS(EFAULT, msgsnd(id, NULL, 4, 0));
    FAILS(EFAULT, msgsnd(id, (struct message *)-4096L, 4, 0));
}

static void may_not_control(int id)
{
    struct msqid_ds ds = {.msg_perm = {.uid = geteuid(), .gid = getegid(), .mode = 0666}, .msg_qbytes = 100};
    FAILS(EPERM, msgctl(id, IPC_SET, &ds));
    FAILS(EFAULT, msgctl(id, IPC_SET, NULL));
    ds.msg_perm.uid = (uid_t)-1;
    FAILS(EPERM, msgctl(id, IPC_SET, &ds));
    FAILS(EPERM, msgctl(id, IPC_RMID, NULL));
}

static void forget_more(int id)
{
    while (take(id, ROOM, 99, NOWAIT) >= 0)
        ;
}

static void modes_decide(char **args)
{
    (void)args;
    int id = queue();
    sends(id, 5, "five");
    set_mode(id, ALICE, STAFF, 0600);
    AS(ALICE, GUESTS, may_read(id); may_write(id));
    AS(BOB, STAFF, may_not_read(id); may_not_write(id); may_not_control(id));
    forget_more(id);
    set_mode(id, ALICE, STAFF, 0460);
    AS(ALICE, STAFF, may_read(id); may_not_write(id));
    AS(BOB, STAFF, may_read(id); may_write(id); may_not_control(id));
    AS(BOB, GUESTS, may_not_read(id); may_not_write(id));
    forget_more(id);
    set_mode(id, ALICE, STAFF, 0204);
    AS(ALICE, STAFF, may_not_read(id); may_write(id));
    AS(BOB, STAFF, may_not_read(id); may_not_write(id));
    AS(BOB, GUESTS, may_read(id); may_not_write(id));
    set_mode(id, ALICE, STAFF, 0002);
    AS(BOB, GUESTS, may_not_read(id); may_write(id));
    set_mode(id, ALICE, STAFF, 0);
    AS(ALICE, STAFF, may_not_read(id); may_not_write(id));
    // Root may whatever the mode says.
    may_read(id);
    may_write(id);
    forget_more(id);
    // Full or empty, permission comes first.
    RECEIVES(id, 0, 0, 5, "five");
    set_bytes(id, 0);
    AS(BOB, GUESTS, FAILS(EACCES, put(id, 1, "x", NOWAIT)); FAILS(EACCES, take(id, 9, 0, NOWAIT)));
    queue_gone(id);
}

// Asking for something first, and having it no more.
static void ids_at_each_call(char **args)
{
    (void)args;
    int id = queue();
    sends(id, 5, "five");
    set_mode(id, ALICE, STAFF, 0600);
    pid_t child = fork();
    if (child == 0) {
        CHECK(setgroups(0, NULL) == 0 && setresgid(GUESTS, GUESTS, GUESTS) == 0);
        for (int n = 0; n < 20; n++) {
            CHECK(seteuid(ALICE) == 0);
            may_read(id);
            may_write(id);
            forget_more(id);
            CHECK(seteuid(0) == 0);
            may_read(id);
            CHECK(seteuid(BOB) == 0);
            may_not_read(id);
            may_not_write(id);
            CHECK(seteuid(0) == 0);
        }
        CHECK(syscall(SYS_setresuid, BOB, BOB, BOB) == 0);
        may_not_read(id);
        may_not_write(id);
        _exit(0);
    }
    wait_ok(child);
    queue_gone(id);
}

// What another process changes holds from its call on.
static void modes_at_each_call(char **args)
{
    (void)args;
    int id = queue();
    struct gate up = gate_new(), down = gate_new();
    sends(id, 5, "five");
    pid_t child = fork();
    if (child == 0) {
        become(ALICE, STAFF);
        for (int n = 0; n < 20; n++) {
            gate_pass(&down);
            may_read(id);
            may_write(id);
            forget_more(id);
            gate_open(&up);
            gate_pass(&down);
            may_read(id);
            may_not_write(id);
            gate_open(&up);
            gate_pass(&down);
            may_not_read(id);
            may_not_write(id);
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
    queue_gone(id);
}

static pid_t asleep_as(int id, uid_t user, int sends, size_t size, int error)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        become(user, STAFF);
        if (sends)
            errno = put_bytes(id, 1, size, 7, 0) == 0 ? 0 : errno;
        else
            errno = take(id, 64, 1, 0) == 4 ? 0 : errno;
        SAME(errno, error);
        _exit(0);
    }
    until_asleep(child);
    return child;
}

// A stricter mode puts out who waits to receive, at once; and who waits to send when there would be room.
static void stricter_modes_end_waits(char **args)
{
    (void)args;
    int id = queue();
    for (int n = 0; n < 10; n++) {
        set_mode(id, ALICE, STAFF, 0666);
        pid_t alice = asleep_as(id, ALICE, 0, 0, 0), bob = asleep_as(id, BOB, 0, 0, n % 2 ? EACCES : 0);
        if (n % 2) {
            set_mode(id, ALICE, STAFF, 0600);
            wait_ok(bob);
        } else {
            set_mode(id, ALICE, STAFF, 0444);
            set_mode(id, ALICE, GUESTS, 0464);
        }
        until_asleep(alice);
        sends(id, 1, "four");
        HOLDS(id, 0, 0);
        if (n % 2 == 0) {
            sends(id, 1, "four");
            wait_ok(bob);
        }
        wait_ok(alice);
        HOLDS(id, 0, 0);

        set_mode(id, ALICE, STAFF, 0666);
        set_bytes(id, 10);
        CHECK(put_bytes(id, 9, 10, 0, 0) == 0);
        alice = asleep_as(id, ALICE, 1, 9, 0);
        bob = asleep_as(id, BOB, 1, 8, EACCES);
        set_mode(id, ALICE, STAFF, 0600);
        until_asleep(alice);
        // It need not know yet.
        takes(id, 9, 10, 0);
        wait_ok(alice);
        // Each of the two fitted, when they were asked.
        set_bytes(id, 1000);
        wait_ok(bob);
        takes(id, 1, 9, 7);
        HOLDS(id, 0, 0);
        set_bytes(id, (unsigned long)limits().msgmnb);
    }
    queue_gone(id);
}

static int is_capable(int capability)
{
    char line[256];
    unsigned long long effective = 0;
    FILE *file = fopen("/proc/self/status", "re");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        sscanf(line, "CapEff: %llx", &effective);
    fclose(file);
    return effective >> capability & 1;
}

// More room than the system's default is for who has privileges.
static void raising_needs_privilege(char **args)
{
    (void)args;
    int id = queue();
    unsigned long most = (unsigned long)limits().msgmnb;
    set_mode(id, ALICE, STAFF, 0600);
    AS(ALICE, STAFF, {
        set_bytes(id, 10);
        set_bytes(id, most);
        struct msqid_ds ds = queue_stat(id);
        ds.msg_qbytes = most + 1;
        ds.msg_perm.mode = 0666;
        FAILS(EPERM, msgctl(id, IPC_SET, &ds));
        ds.msg_qbytes = ULONG_MAX;
        FAILS(EPERM, msgctl(id, IPC_SET, &ds));
        // Nothing is changed.
        SAME(queue_stat(id).msg_perm.mode, 0600);
        SAME(queue_stat(id).msg_qbytes, most);
        // Which of two errors.
        ds.msg_perm.uid = (uid_t)-1;
        FAILS(EPERM, msgctl(id, IPC_SET, &ds));
    });
    struct msqid_ds ds = queue_stat(id);
    ds.msg_qbytes = 2 * most;
    if (msgctl(id, IPC_SET, &ds) != 0) {
        // Root without the capability, as in a container.
        SAME(errno, EPERM);
        CHECK(!is_capable(24));
        queue_gone(id);
        return;
    }
    SAME(queue_stat(id).msg_qbytes, 2 * most);
    unsigned count = 0;
    while (put_bytes(id, 1, 1024, count, NOWAIT) == 0)
        count++;
    SAME(count, 2 * most / 1024);
    AS(ALICE, STAFF, {
        // Not even to what it is.
        ds = queue_stat(id);
        FAILS(EPERM, msgctl(id, IPC_SET, &ds));
        for (unsigned n = 0; n < count; n++)
            takes(id, 0, 1024, n);
        set_bytes(id, most);
    });
    HOLDS(id, 0, 0);
    queue_gone(id);
}

static void creator_and_owner_control(char **args)
{
    (void)args;
    AS(ALICE, STAFF, CHECK(msgget(KEY, IPC_CREAT | 0600) >= 0));
    int id = msgget(KEY, 0);
    CHECK(id >= 0);
    sends(id, 5, "five");
    set_mode(id, BOB, GUESTS, 0600);
    struct msqid_ds ds = queue_stat(id);
    SAME(ds.msg_perm.cuid, ALICE);
    SAME(ds.msg_perm.cgid, STAFF);
    SAME(ds.msg_perm.uid, BOB);
    SAME(ds.msg_perm.gid, GUESTS);
    // The creator counts as an owner.
    AS(ALICE, STAFF, may_read(id); may_write(id); set_mode(id, BOB, GUESTS, 0640));
    AS(BOB, GUESTS, may_read(id); may_write(id); set_mode(id, BOB, GUESTS, 0600));
    AS(NOBODY, GUESTS, may_not_control(id));
    AS(ALICE, STAFF, queue_gone(id));
    FAILS(EINVAL, put(id, 1, "x", 0));
}

static void listing_follows_the_mode(char **args)
{
    (void)args;
    int id = queue();
    sends(id, 5, "five");
    set_mode(id, ALICE, STAFF, 0600);
    AS(BOB, GUESTS, {
        struct msqid_ds ds;
        int found = 0;
        int last = msgctl(0, MSG_INFO, &ds);
        for (int index = 0; index <= last; index++) {
            if (msgctl(index, MSG_STAT_ANY, &ds) != id)
                continue;
            found++;
            SAME(ds.msg_qnum, 1);
            SAME(ds.msg_perm.uid, ALICE);
            FAILS(EACCES, msgctl(index, MSG_STAT, &ds));
        }
        SAME(found, 1);
    });
    queue_gone(id);
}

SCENARIOS({"modes_decide", modes_decide},
          {"ids_at_each_call", ids_at_each_call},
          {"modes_at_each_call", modes_at_each_call},
          {"stricter_modes_end_waits", stricter_modes_end_waits},
          {"raising_needs_privilege", raising_needs_privilege},
          {"creator_and_owner_control", creator_and_owner_control},
          {"listing_follows_the_mode", listing_follows_the_mode})
