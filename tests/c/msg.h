// SPDX-License-Identifier: MIT OR Apache-2.0
// What the test programs for message queues share, beside check.h: short forms of the calls, texts
// of which each byte is known, and children that sleep in a call. Nobody counts who sleeps in a
// queue, so a sleeper is one that /proc shows in the call, or where a routed call sleeps: on a futex.
#ifndef MSG_H
#define MSG_H
#include "check.h"
#include <limits.h>
#include <stddef.h>
#include <sys/msg.h>

#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif

#define NOWAIT IPC_NOWAIT
#define NOERROR MSG_NOERROR
#define COPY MSG_COPY
#define EXCEPT MSG_EXCEPT
#define NOWHERE ((void *)-8L)

// Large enough for every message but those of big_messages.
enum { ROOM = 16384 };

struct message {
    long type;
    char text[ROOM];
};

// A new queue with a key.
static inline int queue(void)
{
    int id = msgget(KEY, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(id >= 0);
    return id;
}

static inline void queue_gone(int id)
{
    CHECK(msgctl(id, IPC_RMID, NULL) == 0);
}

static inline struct msqid_ds queue_stat(int id)
{
    struct msqid_ds ds;
    memset(&ds, 0, sizeof ds);
    CHECK(msgctl(id, IPC_STAT, &ds) == 0);
    return ds;
}

// Checks how many messages, and how many bytes, are in the queue.
#define HOLDS(id, messages, bytes)                                                              \
    do {                                                                                        \
        struct msqid_ds ds_ = queue_stat(id);                                                   \
        SAME(ds_.msg_qnum, messages);                                                           \
        SAME(ds_.__msg_cbytes, bytes);                                                          \
    } while (0)

static inline struct msginfo limits(void)
{
    struct msginfo info;
    CHECK(msgctl(0, IPC_INFO, (struct msqid_ds *)&info) >= 0);
    return info;
}

static inline void set_bytes(int id, unsigned long bytes)
{
    struct msqid_ds ds = queue_stat(id);
    ds.msg_qbytes = bytes;
    CHECK(msgctl(id, IPC_SET, &ds) == 0);
}

static inline void fill(char *text, size_t size, unsigned tag)
{
    for (size_t n = 0; n < size; n++)
        text[n] = (char)(tag * 37 + n * 11 + (n >> 8));
}

static inline int is_filled(const char *text, size_t size, unsigned tag)
{
    for (size_t n = 0; n < size; n++)
        if (text[n] != (char)(tag * 37 + n * 11 + (n >> 8)))
            return 0;
    return 1;
}

// Sends a text of some size that its tag tells.
static inline int put_bytes(int id, long type, size_t size, unsigned tag, int flags)
{
    struct message message = {.type = type};
    CHECK(size <= ROOM);
    fill(message.text, size, tag);
    return msgsnd(id, &message, size, flags);
}

// Sends a text.
static inline int put(int id, long type, const char *text, int flags)
{
    struct message message = {.type = type};
    strcpy(message.text, text);
    return msgsnd(id, &message, strlen(text), flags);
}

static inline void sends(int id, long type, const char *text)
{
    CHECK(put(id, type, text, NOWAIT) == 0);
}

// Receives, with room for so many bytes, and forgets what.
static inline ssize_t take(int id, size_t room, long want, int flags)
{
    struct message message;
    CHECK(room <= ROOM);
    return msgrcv(id, &message, room, want, flags);
}

// Receives what has to be this text and has to be there; `line` is the caller's.
static inline void receives_at(int line, int id, long want, int flags, long type, const char *text)
{
    struct message message;
    errno = 0;
    ssize_t got = msgrcv(id, &message, ROOM - 1, want, flags | NOWAIT);
    if (got >= 0)
        message.text[got] = 0;
    if (got != (ssize_t)strlen(text) || message.type != type || strcmp(message.text, text) != 0) {
        if (got >= 0)
            dprintf(2, "got '%.20s' (%ld)\n", message.text, message.type);
        check_failed("receives at", line, text, errno);
    }
}

#define RECEIVES(id, want, flags, type, text) receives_at(__LINE__, id, want, flags, type, text)

// Checks that nothing that is wanted is there.
#define NOTHING(id, want, flags) FAILS(ENOMSG, take(id, ROOM, want, (flags) | NOWAIT))

// Whether a thread sleeps in a call on a queue. One that was woken and has not run yet still shows that
// call, but another state; and one that shows the state a moment later may sleep elsewhere by then.
static inline int is_asleep(pid_t thread)
{
    char before[256], after[256];
    int number = -1;
    proc_of(thread, "syscall", before, sizeof before);
    if (sscanf(before, "%d", &number) != 1
        || (number != SYS_msgsnd && number != SYS_msgrcv && number != SYS_futex))
        return 0;
    if (state_of(thread) != 'S')
        return 0;
    proc_of(thread, "syscall", after, sizeof after);
    return strcmp(before, after) == 0;
}

// Waits until it does. More than once, lest it is on its way there.
static inline void until_thread_asleep(pid_t pid, pid_t thread)
{
    for (int seen = 0; seen < 3; seen = is_asleep(thread) ? seen + 1 : 0) {
        CHECK(state_of(pid) != 'Z');
        sched_yield();
    }
}

static inline void until_asleep(pid_t pid)
{
    until_thread_asleep(pid, pid);
}

// A child that begins to receive, seen to be asleep, with room for so many bytes. It succeeds if that
// ends with `error`; or, if that is 0, with this text.
static inline pid_t receiver(int id, long want, size_t room, int flags, int error, const char *text)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct message message;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        errno = 0;
        ssize_t got = msgrcv(id, &message, room, want, flags);
        if (error != 0) {
            SAME(got, -1);
            SAME(errno, error);
        } else {
            SAME(got, strlen(text));
            CHECK(memcmp(message.text, text, (size_t)got) == 0);
        }
        _exit(0);
    }
    until_asleep(child);
    return child;
}

// A child that begins to send, seen to be asleep; it succeeds if that ends with `error`, or success.
static inline pid_t sender(int id, long type, size_t size, unsigned tag, int error)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        errno = 0;
        SAME(put_bytes(id, type, size, tag, 0), error == 0 ? 0 : -1);
        if (error != 0)
            SAME(errno, error);
        _exit(0);
    }
    until_asleep(child);
    return child;
}

// Receives a message of some size that its tag tells, which has to be there.
static inline void takes(int id, long want, size_t size, unsigned tag)
{
    struct message message;
    SAME(msgrcv(id, &message, ROOM, want, NOWAIT), size);
    CHECK(is_filled(message.text, size, tag));
}

#endif
