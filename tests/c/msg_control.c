// SPDX-License-Identifier: MIT OR Apache-2.0
// What msgctl accepts, changes and tells.
#include "msg.h"

static long setting(const char *name)
{
    char path[64];
    long value;
    snprintf(path, sizeof path, "/proc/sys/kernel/%s", name);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    SAME(fscanf(file, "%ld", &value), 1);
    fclose(file);
    return value;
}

static void control_rules(char **args)
{
    (void)args;
    int id = queue();
    FAILS(EFAULT, msgctl(id, IPC_STAT, NULL));
    FAILS(EFAULT, msgctl(id, IPC_STAT, NOWHERE));
    FAILS(EINVAL, msgctl(12345, IPC_STAT, NOWHERE));
    FAILS(EINVAL, msgctl(-1, IPC_STAT, NOWHERE));
    FAILS(EFAULT, msgctl(id, IPC_SET, NULL));
    FAILS(EFAULT, msgctl(12345, IPC_SET, NOWHERE));
    FAILS(EINVAL, msgctl(-1, IPC_SET, NOWHERE));
    FAILS(EFAULT, msgctl(0, IPC_INFO, NOWHERE));
    FAILS(EFAULT, msgctl(0, MSG_INFO, NOWHERE));
    FAILS(EINVAL, msgctl(-1, IPC_INFO, NOWHERE));
    FAILS(EINVAL, msgctl(-1, MSG_INFO, NOWHERE));
    FAILS(EINVAL, msgctl(-1, MSG_STAT, NOWHERE));
    FAILS(EINVAL, msgctl(-1, IPC_RMID, NULL));
    FAILS(EINVAL, msgctl(12345, IPC_RMID, NULL));
    static const int unknown[] = {-1, 4, 5, 9, 10, 14, 99, 0x100, 1 << 30, INT_MIN};
    for (size_t n = 0; n < sizeof unknown / sizeof unknown[0]; n++) {
        FAILS(EINVAL, msgctl(id, unknown[n], NOWHERE));
        FAILS(EINVAL, msgctl(-1, unknown[n], NOWHERE));
    }
    CHECK(msgctl(id, IPC_RMID, NOWHERE) == 0);
    FAILS(EINVAL, msgctl(id, IPC_RMID, NULL));
    FAILS(EINVAL, msgctl(id, IPC_STAT, NOWHERE));
}

static void setting_changes(char **args)
{
    (void)args;
    int id = queue();
    unsigned long most = (unsigned long)limits().msgmnb;
    struct msqid_ds ds = {.msg_perm = {.uid = geteuid(), .gid = getegid(), .mode = 07777},
                          .msg_qbytes = 100, .msg_qnum = 9, .__msg_cbytes = 9, .msg_stime = 7,
                          .msg_rtime = 7, .msg_ctime = 7, .msg_lspid = 7, .msg_lrpid = 7};
    CHECK(msgctl(id, IPC_SET, &ds) == 0);
    ds = queue_stat(id);
    SAME(ds.msg_perm.mode, 0777);
    SAME(ds.msg_qbytes, 100);
    SAME(ds.msg_qnum, 0);
    SAME(ds.__msg_cbytes, 0);
    SAME(ds.msg_stime, 0);
    SAME(ds.msg_rtime, 0);
    SAME(ds.msg_lspid, 0);
    SAME(ds.msg_lrpid, 0);
    CHECK(ds.msg_ctime > 7);
    ds.msg_perm.uid = (uid_t)-1;
    ds.msg_qbytes = 50;
    FAILS(EINVAL, msgctl(id, IPC_SET, &ds));
    ds.msg_perm.uid = geteuid();
    ds.msg_perm.gid = (gid_t)-1;
    FAILS(EINVAL, msgctl(id, IPC_SET, &ds));
    SAME(queue_stat(id).msg_perm.uid, geteuid());
    SAME(queue_stat(id).msg_qbytes, 100);
    // Below what is queued: nothing more comes in until there is less.
    for (unsigned n = 0; n < 4; n++)
        CHECK(put_bytes(id, 1, 25, n, NOWAIT) == 0);
    FAILS(EAGAIN, put_bytes(id, 1, 1, 0, NOWAIT));
    set_bytes(id, 60);
    HOLDS(id, 4, 100);
    FAILS(EAGAIN, put_bytes(id, 1, 0, 0, NOWAIT));
    takes(id, 0, 25, 0);
    FAILS(EAGAIN, put_bytes(id, 1, 0, 0, NOWAIT));
    takes(id, 0, 25, 1);
    FAILS(EAGAIN, put_bytes(id, 1, 11, 0, NOWAIT));
    CHECK(put_bytes(id, 1, 10, 4, NOWAIT) == 0);
    FAILS(EAGAIN, put_bytes(id, 1, 1, 0, NOWAIT));
    set_bytes(id, 0);
    takes(id, 0, 25, 2);
    takes(id, 0, 25, 3);
    takes(id, 0, 10, 4);
    FAILS(EAGAIN, put_bytes(id, 1, 0, 0, NOWAIT));
    set_bytes(id, most);
    SAME(queue_stat(id).msg_qbytes, most);
    sends(id, 1, "as at first");
    queue_gone(id);
}

static void stat_tells(char **args)
{
    (void)args;
    int id = queue();
    time_t born = queue_stat(id).msg_ctime;
    pid_t self = getpid();
    next_second();
    FAILS(ENOMSG, take(id, 9, 0, NOWAIT));
    struct msqid_ds ds = queue_stat(id);
    SAME(ds.msg_rtime, 0);
    SAME(ds.msg_lrpid, 0);
    sends(id, 3, "1234");
    ds = queue_stat(id);
    SAME(ds.msg_qnum, 1);
    SAME(ds.__msg_cbytes, 4);
    SAME(ds.msg_lspid, self);
    SAME(ds.msg_lrpid, 0);
    SAME(ds.msg_rtime, 0);
    SAME(ds.msg_ctime, born);
    CHECK(ds.msg_stime > born && ds.msg_stime <= time(NULL));
    time_t sent = ds.msg_stime;
    next_second();
    pid_t child = fork();
    if (child == 0) {
        RECEIVES(id, 0, 0, 3, "1234");
        _exit(0);
    }
    wait_ok(child);
    ds = queue_stat(id);
    SAME(ds.msg_qnum, 0);
    SAME(ds.__msg_cbytes, 0);
    SAME(ds.msg_lspid, self);
    SAME(ds.msg_lrpid, child);
    SAME(ds.msg_stime, sent);
    SAME(ds.msg_ctime, born);
    CHECK(ds.msg_rtime > sent && ds.msg_rtime <= time(NULL));
    time_t received = ds.msg_rtime;
    next_second();
    CHECK(msgctl(id, IPC_SET, &ds) == 0);
    ds = queue_stat(id);
    SAME(ds.msg_stime, sent);
    SAME(ds.msg_rtime, received);
    CHECK(ds.msg_ctime > received);
    // Handed over: sent and received at once, in the name of each.
    child = receiver(id, 3, 9, 0, 0, "x");
    next_second();
    sends(id, 3, "x");
    ds = queue_stat(id);
    SAME(ds.msg_lspid, self);
    SAME(ds.msg_lrpid, child);
    CHECK(ds.msg_stime > received && ds.msg_rtime > received);
    wait_ok(child);
    // A sender that waited has sent when it was let in.
    set_bytes(id, 4);
    sends(id, 3, "full");
    child = sender(id, 3, 4, 1, 0);
    SAME(queue_stat(id).msg_lspid, self);
    sent = queue_stat(id).msg_stime;
    next_second();
    RECEIVES(id, 0, 0, 3, "full");
    wait_ok(child);
    ds = queue_stat(id);
    SAME(ds.msg_lspid, child);
    SAME(ds.msg_lrpid, self);
    CHECK(ds.msg_stime > sent && ds.msg_rtime > sent);
    HOLDS(id, 1, 4);
    queue_gone(id);
}

static void information(char **args)
{
    (void)args;
    struct msginfo info, before, after;
    CHECK(msgctl(0, MSG_INFO, (struct msqid_ds *)&before) >= 0);
    int first = queue(), second = msgget(IPC_PRIVATE, 0600);
    CHECK(second >= 0);
    sends(first, 1, "12345");
    sends(first, 2, "");
    sends(second, 1, "123");
    memset(&info, 0x5a, sizeof info);
    int last = msgctl(0, IPC_INFO, (struct msqid_ds *)&info);
    CHECK(last >= 1);
    SAME(info.msgmni, setting("msgmni"));
    SAME(info.msgmax, setting("msgmax"));
    SAME(info.msgmnb, setting("msgmnb"));
    SAME(info.msgpool, 32000 * (16384 / 1024));
    SAME(info.msgmap, 16384);
    SAME(info.msgssz, 16);
    SAME(info.msgtql, 16384);
    SAME(info.msgseg, 0xffff);
    // The id means nothing.
    SAME(msgctl(99, MSG_INFO, (struct msqid_ds *)&after), last);
    SAME(after.msgpool, before.msgpool + 2);
    SAME(after.msgmap, before.msgmap + 3);
    SAME(after.msgtql, before.msgtql + 8);
    SAME(after.msgmax, info.msgmax);
    int found = 0;
    for (int index = 0; index <= last; index++) {
        struct msqid_ds ds, any;
        memset(&ds, 0, sizeof ds);
        memset(&any, 0, sizeof any);
        int id = msgctl(index, MSG_STAT, &ds);
        if (id < 0) {
            SAME(errno, EINVAL);
            continue;
        }
        SAME(msgctl(index, MSG_STAT_ANY, &any), id);
        SAME(ds.msg_qnum, any.msg_qnum);
        SAME(ds.msg_perm.__key, any.msg_perm.__key);
        FAILS(EFAULT, msgctl(index, MSG_STAT, NOWHERE));
        if (id == first) {
            found++;
            SAME(ds.msg_qnum, 2);
            SAME(ds.__msg_cbytes, 5);
            SAME(ds.msg_qbytes, info.msgmnb);
            SAME(ds.msg_lspid, getpid());
            SAME(ds.msg_perm.__key, KEY);
        } else if (id == second) {
            found++;
            SAME(ds.msg_qnum, 1);
            SAME(ds.msg_perm.__key, 0);
        }
    }
    SAME(found, 2);
    queue_gone(first);
    queue_gone(second);
    CHECK(msgctl(0, MSG_INFO, (struct msqid_ds *)&after) >= 0);
    SAME(after.msgpool, before.msgpool);
    SAME(after.msgmap, before.msgmap);
    SAME(after.msgtql, before.msgtql);
}

SCENARIOS({"control_rules", control_rules},
          {"setting_changes", setting_changes},
          {"stat_tells", stat_tells},
          {"information", information})
