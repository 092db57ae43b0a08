// SPDX-License-Identifier: MIT OR Apache-2.0
// What the calls on message queues accept, change and answer, for one process that never sleeps.
#include "msg.h"

static void get_rules(char **args)
{
    (void)args;
    FAILS(ENOENT, msgget(KEY, 0600));
    FAILS(ENOENT, msgget(KEY, 0));
    FAILS(ENOENT, msgget(KEY, IPC_EXCL));
    int id = msgget(KEY, IPC_CREAT | 0640);
    CHECK(id >= 0);
    SAME(msgget(KEY, 0), id);
    SAME(msgget(KEY, IPC_CREAT | 0600), id);
    SAME(msgget(KEY, IPC_EXCL), id);
    SAME(msgget(KEY, 0777), id);
    FAILS(EEXIST, msgget(KEY, IPC_CREAT | IPC_EXCL | 0600));
    FAILS(EEXIST, msgget(KEY, IPC_CREAT | IPC_EXCL));
    struct msqid_ds ds = queue_stat(id);
    SAME(ds.msg_perm.__key, KEY);
    SAME(ds.msg_perm.mode, 0640);
    SAME(ds.msg_perm.uid, geteuid());
    SAME(ds.msg_perm.cuid, geteuid());
    SAME(ds.msg_perm.gid, getegid());
    SAME(ds.msg_perm.cgid, getegid());
    SAME(ds.msg_qnum, 0);
    SAME(ds.__msg_cbytes, 0);
    SAME(ds.msg_qbytes, limits().msgmnb);
    SAME(ds.msg_lspid, 0);
    SAME(ds.msg_lrpid, 0);
    SAME(ds.msg_stime, 0);
    SAME(ds.msg_rtime, 0);
    CHECK(ds.msg_ctime > 0 && ds.msg_ctime <= time(NULL));
    sends(id, 1, "of the first");
    queue_gone(id);
    FAILS(ENOENT, msgget(KEY, 0));
    int again = msgget(KEY, IPC_CREAT | IPC_EXCL | 07000);
    CHECK(again >= 0 && again != id);
    SAME(queue_stat(again).msg_perm.mode, 0);
    NOTHING(again, 0, 0);
    queue_gone(again);
    // The same key of a segment is another one.
    id = queue();
    FAILS(ENOENT, shmget(KEY, 1, 0));
    queue_gone(id);
}

static void private_queues(char **args)
{
    (void)args;
    int one = msgget(IPC_PRIVATE, 0600), other = msgget(IPC_PRIVATE, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(one >= 0 && other >= 0 && one != other);
    SAME(queue_stat(one).msg_perm.__key, 0);
    pid_t child = receiver(one, 0, 64, 0, 0, "hello");
    sends(other, 1, "elsewhere");
    until_asleep(child);
    sends(one, 1, "hello");
    wait_ok(child);
    HOLDS(one, 0, 0);
    HOLDS(other, 1, 9);
    queue_gone(one);
    queue_gone(other);
}

// Ids that are none.
static void wrong_ids(char **args)
{
    (void)args;
    int id = queue();
    sends(id, 1, "x");
    queue_gone(id);
    const int wrong[] = {id, -1, INT_MIN, 12345, INT_MAX, 0x40000000};
    for (size_t n = 0; n < sizeof wrong / sizeof wrong[0]; n++) {
        struct msqid_ds ds;
        memset(&ds, 0, sizeof ds);
        FAILS(EINVAL, put(wrong[n], 1, "x", NOWAIT));
        FAILS(EINVAL, put(wrong[n], 1, "x", 0));
        FAILS(EINVAL, take(wrong[n], 8, 0, NOWAIT));
        FAILS(EINVAL, take(wrong[n], 8, 0, 0));
        FAILS(EINVAL, take(wrong[n], 8, 0, COPY | NOWAIT));
        FAILS(EINVAL, msgctl(wrong[n], IPC_STAT, &ds));
        FAILS(EINVAL, msgctl(wrong[n], IPC_SET, &ds));
        FAILS(EINVAL, msgctl(wrong[n], IPC_RMID, NULL));
    }
}

static void send_errors(char **args)
{
    (void)args;
    int id = queue(), most = limits().msgmax;
    struct message message = {.type = 1};
    FAILS(EINVAL, put(id, 0, "x", 0));
    FAILS(EINVAL, put(id, -1, "x", 0));
    FAILS(EINVAL, put(id, LONG_MIN, "x", 0));
    FAILS(EINVAL, msgsnd(id, &message, (size_t)most + 1, 0));
    FAILS(EINVAL, msgsnd(id, &message, (size_t)-1, 0));
    FAILS(EINVAL, msgsnd(id, &message, (size_t)LONG_MIN, 0));
    FAILS(EINVAL, msgsnd(id, &message, 1UL << 32, 0));
    HOLDS(id, 0, 0);
    sends(id, LONG_MAX, "last type");
    sends(id, 1, "first type");
    RECEIVES(id, LONG_MAX, 0, LONG_MAX, "last type");
    RECEIVES(id, 1, 0, 1, "first type");

    // Memory that is none, and what comes before it and after it.
    FAILS(EFAULT, msgsnd(id, NULL, 1, 0));
    FAILS(EFAULT, msgsnd(id, NOWHERE, 1, 0));
    FAILS(EFAULT, msgsnd(id, NULL, 0, 0));
    FAILS(EFAULT, msgsnd(-1, NULL, 1, 0));
    FAILS(EFAULT, msgsnd(12345, NULL, 1, 0));
    FAILS(EFAULT, msgsnd(id, NULL, (size_t)-1, 0));
    char *page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED && munmap(page + PAGE, PAGE) == 0);
    long *type = (long *)(page + PAGE - sizeof(long));
    *type = 1;
    CHECK(msgsnd(id, type, 0, NOWAIT) == 0);
    FAILS(EFAULT, msgsnd(id, type, 1, NOWAIT));
    FAILS(EINVAL, msgsnd(id, type, (size_t)most + 1, NOWAIT));
    FAILS(EINVAL, msgsnd(-1, type, 1, NOWAIT));
    FAILS(EFAULT, msgsnd(12345, type, 1, NOWAIT));
    FAILS(EFAULT, msgsnd(id, page + PAGE - 4, 0, NOWAIT));
    *type = 0;
    FAILS(EINVAL, msgsnd(id, type, 1, NOWAIT));
    *type = 1;
    SAME(take(id, 0, 0, NOWAIT), 0);
    // A full queue says so only to whom the rest is right.
    set_bytes(id, 0);
    FAILS(EAGAIN, msgsnd(id, type, 0, NOWAIT));
    FAILS(EFAULT, msgsnd(id, type, 1, NOWAIT));
    FAILS(EFAULT, msgsnd(id, type, 1, 0));
    FAILS(EINVAL, put(id, 0, "x", NOWAIT));
    HOLDS(id, 0, 0);
    CHECK(munmap(page, PAGE) == 0);
    queue_gone(id);
}

// Full by bytes.
static void full_by_bytes(char **args)
{
    (void)args;
    int id = queue();
    unsigned long most = (unsigned long)limits().msgmnb, held = 0;
    unsigned count = 0;
    for (; held + 1000 <= most; held += 1000)
        CHECK(put_bytes(id, 1, 1000, count++, NOWAIT) == 0);
    FAILS(EAGAIN, put_bytes(id, 1, 1000, 0, NOWAIT));
    FAILS(EAGAIN, put_bytes(id, 1, most - held + 1, 0, NOWAIT));
    HOLDS(id, count, held);
    CHECK(put_bytes(id, 2, most - held, 77, NOWAIT) == 0);
    HOLDS(id, count + 1, most);
    FAILS(EAGAIN, put_bytes(id, 1, 1, 0, NOWAIT));
    // No byte, and so it fits.
    CHECK(put_bytes(id, 3, 0, 0, NOWAIT) == 0);
    HOLDS(id, count + 2, most);
    takes(id, 2, most - held, 77);
    takes(id, 3, 0, 0);
    for (unsigned n = 0; n < count; n++) {
        takes(id, 0, 1000, n);
        HOLDS(id, count - n - 1, held - (n + 1) * 1000);
    }
    NOTHING(id, 0, 0);
    // And all over again.
    for (int round = 0; round < 50; round++) {
        for (unsigned n = 0; n < count; n++)
            CHECK(put_bytes(id, 1 + n % 3, 1000, n, NOWAIT) == 0);
        FAILS(EAGAIN, put_bytes(id, 1, 1000, 0, NOWAIT));
        for (long type = round % 3; type < round % 3 + 3; type++)
            while (take(id, ROOM, 1 + type % 3, NOWAIT) >= 0)
                ;
        HOLDS(id, 0, 0);
    }
    queue_gone(id);
}

// Full by the number of messages: as many as bytes.
static void full_by_count(char **args)
{
    (void)args;
    int id = queue();
    long most = limits().msgmnb;
    for (long n = 0; n < most; n++)
        CHECK(put_bytes(id, 1 + n, 0, 0, NOWAIT) == 0);
    FAILS(EAGAIN, put_bytes(id, 1, 0, 0, NOWAIT));
    FAILS(EAGAIN, put_bytes(id, 1, 1, 0, NOWAIT));
    HOLDS(id, most, 0);
    SAME(take(id, 0, most / 2, NOWAIT), 0);
    CHECK(put_bytes(id, most + 1, 1, 9, NOWAIT) == 0);
    FAILS(EAGAIN, put_bytes(id, 1, 0, 0, NOWAIT));
    // In their order, and by type.
    SAME(take(id, 0, most, NOWAIT), 0);
    struct message message;
    for (long n = 1; n < most; n++) {
        if (n == most / 2)
            continue;
        SAME(msgrcv(id, &message, 0, 0, NOWAIT), 0);
        SAME(message.type, n);
    }
    takes(id, 0, 1, 9);
    HOLDS(id, 0, 0);
    set_bytes(id, 3);
    for (int n = 0; n < 3; n++)
        CHECK(put_bytes(id, 1, n == 0, 0, NOWAIT) == 0);
    FAILS(EAGAIN, put_bytes(id, 1, 0, 0, NOWAIT));
    queue_gone(id);
}

static void receive_by_type(char **args)
{
    (void)args;
    int id = queue();
    sends(id, 5, "a");
    sends(id, 3, "b");
    sends(id, 5, "c");
    sends(id, 9, "d");
    sends(id, 3, "e");
    NOTHING(id, 4, 0);
    NOTHING(id, 6, 0);
    NOTHING(id, -2, 0);
    NOTHING(id, -1, 0);
    RECEIVES(id, 5, 0, 5, "a");
    RECEIVES(id, 3, 0, 3, "b");
    RECEIVES(id, 0, 0, 5, "c");
    RECEIVES(id, 0, 0, 9, "d");
    RECEIVES(id, 0, 0, 3, "e");
    NOTHING(id, 0, 0);
    // The lowest first, and of those the first.
    sends(id, 7, "a");
    sends(id, 4, "b");
    sends(id, 6, "c");
    sends(id, 4, "d");
    sends(id, LONG_MAX, "e");
    sends(id, 1, "f");
    RECEIVES(id, -4, 0, 1, "f");
    NOTHING(id, -3, 0);
    RECEIVES(id, -6, 0, 4, "b");
    RECEIVES(id, -100, 0, 4, "d");
    RECEIVES(id, LONG_MIN + 1, 0, 6, "c");
    RECEIVES(id, -LONG_MAX + 1, 0, 7, "a");
    NOTHING(id, -LONG_MAX + 1, 0);
    RECEIVES(id, LONG_MIN, 0, LONG_MAX, "e");
    // Any but one.
    sends(id, 2, "a");
    sends(id, 2, "b");
    sends(id, 1, "c");
    sends(id, 3, "d");
    RECEIVES(id, 2, EXCEPT, 1, "c");
    RECEIVES(id, 3, EXCEPT, 2, "a");
    RECEIVES(id, 2, EXCEPT, 3, "d");
    NOTHING(id, 2, EXCEPT);
    // With other types the flag means nothing.
    RECEIVES(id, 0, EXCEPT, 2, "b");
    sends(id, 2, "a");
    sends(id, 1, "b");
    RECEIVES(id, -2, EXCEPT, 1, "b");
    RECEIVES(id, LONG_MAX, EXCEPT, 2, "a");
    HOLDS(id, 0, 0);
    queue_gone(id);
}

// Types that agree in many bits, so that whoever keeps lists by some of them mixes up nothing.
static void first_in_first_out(char **args)
{
    (void)args;
    enum { MANY = 4000, TYPES = 9 };
    static const long types[TYPES] = {1,        65,           129,         1 << 16, (1 << 16) + 1,
                                      1L << 32, (1L << 32) + 1, LONG_MAX - 63, LONG_MAX};
    int id = queue();
    unsigned next[TYPES] = {0}, taken[TYPES] = {0};
    struct {
        long type;
        unsigned serial;
    } message;
    unsigned long long random = 12345;
    for (int n = 0; n < MANY; n++) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        unsigned which = (unsigned)(random >> 33) % TYPES;
        message.type = types[which];
        message.serial = next[which]++;
        CHECK(msgsnd(id, &message, sizeof message.serial, NOWAIT) == 0);
        if (n % 3 == 2) {
            which = (unsigned)(random >> 40) % TYPES;
            if (msgrcv(id, &message, sizeof message.serial, types[which], NOWAIT) < 0) {
                SAME(errno, ENOMSG);
                SAME(taken[which], next[which]);
            } else {
                SAME(message.type, types[which]);
                SAME(message.serial, taken[which]++);
            }
        }
    }
    // The lowest type first, until none is left.
    for (int which = 0; which < TYPES; which++) {
        while (taken[which] < next[which]) {
            SAME(msgrcv(id, &message, sizeof message.serial, LONG_MIN, NOWAIT), sizeof message.serial);
            SAME(message.type, types[which]);
            SAME(message.serial, taken[which]++);
        }
    }
    HOLDS(id, 0, 0);
    queue_gone(id);
}

static void too_long_for_the_room(char **args)
{
    (void)args;
    int id = queue();
    struct message message;
    sends(id, 4, "0123456789");
    sends(id, 5, "abc");
    FAILS(E2BIG, take(id, 9, 0, 0));
    FAILS(E2BIG, take(id, 0, 0, NOWAIT));
    FAILS(E2BIG, take(id, 9, -9, 0));
    FAILS(E2BIG, take(id, 9, 5, EXCEPT));
    // It is still there, and the first.
    HOLDS(id, 2, 13);
    SAME(queue_stat(id).msg_lrpid, 0);
    SAME(queue_stat(id).msg_rtime, 0);
    // The message is found before the memory is looked at.
    FAILS(E2BIG, msgrcv(id, NULL, 9, 0, 0));
    memset(&message, 'z', sizeof message);
    SAME(msgrcv(id, &message, 4, 0, NOERROR), 4);
    SAME(message.type, 4);
    CHECK(memcmp(message.text, "0123zzzz", 8) == 0);
    // The rest is gone.
    HOLDS(id, 1, 3);
    memset(&message, 'z', sizeof message);
    SAME(msgrcv(id, &message, 0, 0, NOERROR | NOWAIT), 0);
    SAME(message.type, 5);
    SAME(message.text[0], 'z');
    HOLDS(id, 0, 0);
    sends(id, 5, "abc");
    SAME(msgrcv(id, &message, 3, 0, 0), 3);
    // Room that is no size.
    sends(id, 5, "abc");
    FAILS(EINVAL, msgrcv(id, &message, (size_t)-1, 0, NOWAIT));
    FAILS(EINVAL, msgrcv(id, &message, (size_t)LONG_MIN, 0, NOERROR));
    FAILS(EINVAL, msgrcv(id, NULL, (size_t)-1, 0, NOERROR));
    // More room than any message needs.
    SAME(msgrcv(id, &message, LONG_MAX, 0, NOWAIT), 3);
    FAILS(ENOMSG, msgrcv(id, NULL, LONG_MAX, 0, NOWAIT));
    CHECK(memcmp(message.text, "abc", 3) == 0);
    queue_gone(id);
}

static void copies(char **args)
{
    (void)args;
    int id = queue();
    struct message message;
    FAILS(EINVAL, msgrcv(id, &message, 9, 0, COPY));
    FAILS(EINVAL, msgrcv(id, &message, 9, 0, COPY | EXCEPT));
    FAILS(EINVAL, msgrcv(id, NULL, 9, 0, COPY));
    FAILS(EINVAL, msgrcv(-1, NULL, 9, 0, COPY | NOWAIT));
    FAILS(EINVAL, msgrcv(12345, &message, 9, 0, COPY | NOWAIT));
    FAILS(ENOMSG, msgrcv(id, &message, 9, 0, COPY | NOWAIT));
    FAILS(EFAULT, msgrcv(id, NULL, 9, 0, COPY | NOWAIT));
    FAILS(EFAULT, msgrcv(12345, NULL, 9, 0, COPY | NOWAIT));
    sends(id, 7, "zero");
    sends(id, 3, "the first");
    sends(id, 5, "");
    for (int round = 0; round < 2; round++) {
        RECEIVES(id, 0, COPY, 7, "zero");
        RECEIVES(id, 1, COPY, 3, "the first");
        RECEIVES(id, 2, COPY, 5, "");
        RECEIVES(id, 1, COPY | NOERROR, 3, "the first");
        NOTHING(id, 3, COPY);
        NOTHING(id, LONG_MAX, COPY);
        NOTHING(id, -1, COPY);
        NOTHING(id, LONG_MIN, COPY);
        HOLDS(id, 3, 13);
        SAME(queue_stat(id).msg_lrpid, 0);
        SAME(queue_stat(id).msg_rtime, 0);
    }
    FAILS(E2BIG, msgrcv(id, &message, 8, 1, COPY | NOWAIT));
    // Not cut off, as a message that is taken would be.
    FAILS(EINVAL, msgrcv(id, &message, 8, 1, COPY | NOWAIT | NOERROR));
    FAILS(EINVAL, msgrcv(id, &message, 9, 1, COPY | NOWAIT | EXCEPT));
    SAME(msgrcv(id, &message, 9, 1, COPY | NOWAIT), 9);
    FAILS(EFAULT, msgrcv(id, NULL, 9, 1, COPY | NOWAIT));
    FAILS(EFAULT, msgrcv(id, NULL, 0, 2, COPY | NOWAIT));
    HOLDS(id, 3, 13);
    CHECK(put_bytes(id, 9, 3000, 5, NOWAIT) == 0);
    SAME(msgrcv(id, &message, LONG_MAX, 3, COPY | NOWAIT), 3000);
    SAME(message.type, 9);
    CHECK(is_filled(message.text, 3000, 5));
    RECEIVES(id, 0, 0, 7, "zero");
    // The number is that in the queue as it is.
    RECEIVES(id, 0, COPY, 3, "the first");
    takes(id, 9, 3000, 5);
    queue_gone(id);
}

static void raw_calls(char **args)
{
    (void)args;
    int id = (int)syscall(SYS_msgget, KEY, IPC_CREAT | 0600);
    CHECK(id >= 0);
    SAME(msgget(KEY, 0), id);
    struct message message = {.type = 5, .text = "text"};
    CHECK(syscall(SYS_msgsnd, id, &message, 4UL, 0) == 0);
    RECEIVES(id, 0, 0, 5, "text");
    sends(id, 6, "another");
    memset(&message, 0, sizeof message);
    SAME(syscall(SYS_msgrcv, id, &message, 64UL, -6L, IPC_NOWAIT), 7);
    CHECK(message.type == 6 && strcmp(message.text, "another") == 0);
    FAILS(ENOMSG, syscall(SYS_msgrcv, id, &message, 64UL, 0L, IPC_NOWAIT));
    FAILS(EFAULT, syscall(SYS_msgsnd, id, NULL, 4UL, 0));
    FAILS(EINVAL, syscall(SYS_msgsnd, id, &message, -1L, 0));
    struct msqid_ds ds;
    CHECK(syscall(SYS_msgctl, id, IPC_STAT, &ds) == 0);
    SAME(ds.msg_lspid, getpid());
    CHECK(syscall(SYS_msgctl, id, IPC_RMID, 0) == 0);
    FAILS(EINVAL, syscall(SYS_msgsnd, id, &message, 4UL, 0));
    FAILS(ENOENT, syscall(SYS_msgget, KEY, 0));
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
    int id = queue();
    struct msqid_ds ds;
    errno = 4321;
    msgget(KEY, 0);
    put(id, 1, "short", 0);
    put_bytes(id, 2, 5000, 1, 0);
    take(id, ROOM, 0, COPY | NOWAIT);
    take(id, ROOM, 2, 0);
    take(id, 1, 1, NOERROR);
    msgctl(id, IPC_STAT, &ds);
    msgctl(id, IPC_SET, &ds);
    SAME(errno, 4321);
    pid_t child = fork();
    if (child == 0) {
        errno = 4321;
        SAME(take(id, ROOM, 0, 0), 1);
        SAME(errno, 4321);
        CHECK(sigprocmask(SIG_BLOCK, NULL, &after) == 0);
        CHECK(memcmp(&before, &after, sizeof before) == 0);
        _exit(0);
    }
    until_asleep(child);
    sends(id, 1, "x");
    wait_ok(child);
    FAILS(ENOMSG, take(id, ROOM, 0, NOWAIT));
    CHECK(sigprocmask(SIG_BLOCK, NULL, &after) == 0);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    queue_gone(id);
}

SCENARIOS({"get_rules", get_rules},
          {"private_queues", private_queues},
          {"wrong_ids", wrong_ids},
          {"send_errors", send_errors},
          {"full_by_bytes", full_by_bytes},
          {"full_by_count", full_by_count},
          {"receive_by_type", receive_by_type},
          {"first_in_first_out", first_in_first_out},
          {"too_long_for_the_room", too_long_for_the_room},
          {"copies", copies},
          {"raw_calls", raw_calls},
          {"errno_and_mask_are_kept", errno_and_mask_are_kept})
