// SPDX-License-Identifier: MIT OR Apache-2.0
// What becomes of a queue's sleepers and messages when the queue goes, when processes and threads end,
// and when there are many.
#include "msg.h"

static void removal_wakes(char **args)
{
    (void)args;
    for (int round = 0; round < 20; round++) {
        int id = queue();
        set_bytes(id, 10);
        CHECK(put_bytes(id, 1, 10, 1, 0) == 0);
        pid_t children[] = {receiver(id, 2, 9, 0, EIDRM, NULL),     receiver(id, 1, 9, EXCEPT, EIDRM, NULL),
                            receiver(id, 7, 0, NOERROR, EIDRM, NULL), sender(id, 2, 4, 1, EIDRM),
                            sender(id, 3, 600, 1, EIDRM)};
        queue_gone(id);
        for (int n = 0; n < 5; n++)
            wait_ok(children[n]);
        FAILS(EINVAL, put(id, 1, "x", 0));
        FAILS(EINVAL, take(id, 9, 0, 0));
    }
    // The key is free for a queue in which nobody sleeps.
    int id = queue();
    sends(id, 2, "x");
    RECEIVES(id, 0, 0, 2, "x");
    queue_gone(id);
}

// Who is killed while it waits gets nothing, from the moment when its parent knows.
static void killed_receivers(char **args)
{
    (void)args;
    int id = queue();
    for (int n = 0; n < 100; n++) {
        pid_t child = receiver(id, n % 3 - 1, 64, n % 2 ? NOERROR : 0, 0, NULL);
        wait_killed(child);
        sends(id, 1, "not for the dead");
        HOLDS(id, 1, 16);
        SAME(queue_stat(id).msg_lrpid, n == 0 ? 0 : getpid());
        RECEIVES(id, 0, 0, 1, "not for the dead");
    }
    // Of several, only the dead.
    pid_t first = receiver(id, 0, 9, 0, 0, NULL), second = receiver(id, 0, 9, 0, 0, "x");
    pid_t third = receiver(id, 0, 9, 0, 0, NULL);
    wait_killed(first);
    sends(id, 1, "x");
    wait_ok(second);
    wait_killed(third);
    sends(id, 1, "y");
    HOLDS(id, 1, 1);
    queue_gone(id);
}

// Killed at any moment: it has the message, or the message is there.
static void killed_at_any_moment(char **args)
{
    (void)args;
    int id = queue();
    struct gate told = gate_new();
    for (unsigned n = 0; n < 400; n++) {
        pid_t child = fork();
        if (child == 0) {
            struct message message;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            gate_open(&told);
            SAME(msgrcv(id, &message, ROOM, 0, 0), 3000);
            CHECK(is_filled(message.text, 3000, n));
            pause();
        }
        gate_pass(&told);
        if (n % 2)
            until_asleep(child);
        for (volatile unsigned turns = n * 7919 % 20000; n % 4 < 2 && turns > 0; turns--)
            ;
        CHECK(put_bytes(id, 1, 3000, n, 0) == 0);
        wait_killed(child);
        struct msqid_ds ds = queue_stat(id);
        CHECK(ds.msg_qnum <= 1);
        SAME(ds.__msg_cbytes, ds.msg_qnum * 3000);
        if (ds.msg_qnum == 1)
            takes(id, 0, 3000, n);
    }
    HOLDS(id, 0, 0);
    // Nothing of the room is lost.
    while (put_bytes(id, 1, 1000, 1, NOWAIT) == 0)
        ;
    SAME(queue_stat(id).__msg_cbytes, limits().msgmnb / 1000 * 1000);
    queue_gone(id);
}

static void killed_senders(char **args)
{
    (void)args;
    int id = queue();
    set_bytes(id, 10);
    // More than anybody has room for beside the queue.
    for (unsigned n = 0; n < 600; n++) {
        CHECK(put_bytes(id, 1, 10, n, 0) == 0);
        pid_t child = sender(id, 2, n % 2 ? 5 : 8000, 77, 0), next = n % 5 ? 0 : sender(id, 3, 6, 78, 0);
        wait_killed(child);
        takes(id, 0, 10, n);
        if (next != 0) {
            wait_ok(next);
            takes(id, 3, 6, 78);
        }
        HOLDS(id, 0, 0);
        SAME(queue_stat(id).msg_lspid, next ? next : getpid());
    }
    // The room of the dead is there for the living.
    unsigned long most = (unsigned long)limits().msgmnb;
    set_bytes(id, most);
    unsigned count = 0;
    while (put_bytes(id, 1, 1000, count, NOWAIT) == 0)
        count++;
    SAME(count, most / 1000);
    queue_gone(id);
}

struct taker {
    pthread_t thread;
    int id;
    _Atomic pid_t number;
    _Atomic int got;
};

static void *takes_one(void *data)
{
    struct taker *me = data;
    me->number = (pid_t)syscall(SYS_gettid);
    SAME(take(me->id, 64, 0, 0), 1);
    me->got = 1;
    return NULL;
}

// A thread that takes a message, seen to be asleep.
static void start_taker(struct taker *taker, int id)
{
    *taker = (struct taker){.id = id};
    CHECK(pthread_create(&taker->thread, NULL, takes_one, taker) == 0);
    while (taker->number == 0)
        sched_yield();
    until_thread_asleep(getpid(), taker->number);
}

static void threads_sleep_on_their_own(char **args)
{
    (void)args;
    enum { MANY = 20 };
    int id = queue();
    struct taker takers[MANY];
    for (int n = 0; n < MANY; n++)
        start_taker(&takers[n], id);
    for (int n = 0; n < MANY; n++) {
        sends(id, 1, "x");
        HOLDS(id, 0, 0);
        CHECK(pthread_join(takers[n].thread, NULL) == 0);
        SAME(takers[n].got, 1);
    }
    queue_gone(id);
}

// Threads that sleep while their process ends, becomes another program, or forks.
static void other_threads_end_it(char **args)
{
    (void)args;
    int id = queue();
    for (int n = 0; n < 12; n++) {
        pid_t child = fork();
        if (child == 0) {
            struct taker takers[3];
            for (int k = 0; k < 3; k++)
                start_taker(&takers[k], id);
            if (n % 4 == 0)
                exit(0);
            if (n % 4 == 1)
                execl("/bin/true", "true", NULL);
            if (n % 4 == 2)
                kill(getpid(), SIGKILL);
            pid_t grandchild = fork();
            if (grandchild == 0) {
                // Its parent's threads are not its own.
                sends(id, 1, "x");
                HOLDS(id, 0, 0);
                _exit(0);
            }
            wait_ok(grandchild);
            HOLDS(id, 0, 0);
            // The message of a receiver that dies before it has read it may be back in the queue.
            while (!takers[0].got && !takers[1].got && !takers[2].got)
                sched_yield();
            _exit(0);
        }
        int status;
        SAME(waitpid(child, &status, 0), child);
        SAME(n % 4 == 2 ? WIFSIGNALED(status) : status == 0, 1);
        sends(id, 1, "x");
        RECEIVES(id, 0, 0, 1, "x");
    }
    queue_gone(id);
}

static void messages_outlive_who_sent_them(char **args)
{
    (void)args;
    int id = queue();
    for (unsigned n = 0; n < 30; n++) {
        sends(id, 1, "before the fork");
        pid_t child = fork();
        if (child == 0) {
            RECEIVES(id, 0, 0, 1, "before the fork");
            CHECK(put_bytes(id, 2, n * 100, n, 0) == 0);
            sends(id, 3, "and more");
            if (n % 2)
                kill(getpid(), SIGKILL);
            _exit(0);
        }
        SAME(waitpid(child, NULL, 0), child);
        SAME(queue_stat(id).msg_lspid, child);
        takes(id, 0, n * 100, n);
        RECEIVES(id, 0, 0, 3, "and more");
        HOLDS(id, 0, 0);
    }
    queue_gone(id);
}

// More sleepers than a small table would have room for.
static void many_sleepers(char **args)
{
    (void)args;
    enum { MANY = 200 };
    int id = queue();
    pid_t children[MANY];
    for (int n = 0; n < MANY; n++)
        children[n] = receiver(id, n + 1, 9, 0, 0, "x");
    for (int n = MANY - 1; n >= 0; n--) {
        sends(id, n + 1, "x");
        HOLDS(id, 0, 0);
    }
    for (int n = 0; n < MANY; n++)
        wait_ok(children[n]);
    queue_gone(id);
}

SCENARIOS({"removal_wakes", removal_wakes},
          {"killed_receivers", killed_receivers},
          {"killed_at_any_moment", killed_at_any_moment},
          {"killed_senders", killed_senders},
          {"threads_sleep_on_their_own", threads_sleep_on_their_own},
          {"other_threads_end_it", other_threads_end_it},
          {"messages_outlive_who_sent_them", messages_outlive_who_sent_them},
          {"many_sleepers", many_sleepers})
