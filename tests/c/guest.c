// SPDX-License-Identifier: MIT OR Apache-2.0
// What the tests between guests need beside the programs for domains: `guest maps KEY` is a process that
// maps what another guest made, with all that processes do; `guest storm KEY PROCESSES` keeps so many
// processes at work on a segment, a set and a queue of that key, and kills them at random moments.
#include "sem.h"
#include "random.h"
#include <sys/msg.h>

enum { ROOM = 256, TEXT = 200 };

struct message {
    long type;
    char text[ROOM];
};

struct board {
    volatile uint64_t count, again; // by who has the mutex: equal when it is given back
    volatile uint64_t inside;       // who has it
    volatile uint64_t stop;
};

static key_t key;

static void *attached(int flags)
{
    int id = shmget(key, 0, 0);
    CHECK(id >= 0);
    void *at = shmat(id, NULL, flags);
    CHECK(at != (void *)-1);
    return at;
}

static long attachments(void)
{
    struct shmid_ds ds;
    CHECK(shmctl(shmget(key, 0, 0), IPC_STAT, &ds) == 0);
    return (long)ds.shm_nattch;
}

static void ends_well(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    SAME(status, 0);
}

// Several attachments in one process, also for reading only; fork, and fork in the child; exec; kill.
static void maps(void)
{
    long before = attachments();
    volatile char *one = attached(0), *other = attached(0);
    volatile const char *read_only = attached(SHM_RDONLY);
    int set = semget(key, 0, 0), queue = msgget(key, 0);
    CHECK(set >= 0 && queue >= 0);
    does(set, 0, 1, 0);
    SAME(attachments(), before + 3);
    one[100] = 1;
    SAME(other[100], 1);
    SAME(read_only[100], 1);

    // A child has all of it, at the same addresses, and so has its child.
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        SAME(one[100], 1);
        other[100] = 2;
        SAME(attachments(), before + 6);
        does(set, 0, -1, 0);
        pid_t grandchild = fork();
        CHECK(grandchild >= 0);
        if (grandchild == 0) {
            SAME(read_only[100], 2);
            one[100] = 3;
            struct message message = {.type = 7, .text = "from a grandchild"};
            CHECK(msgsnd(queue, &message, 18, 0) == 0);
            does(set, 0, 2, 0);
            _exit(0);
        }
        ends_well(grandchild);
        SAME(one[100], 3);
        CHECK(shmdt((const void *)one) == 0);
        SAME(attachments(), before + 5);
        _exit(0);
    }
    ends_well(child);
    SAME(read_only[100], 3);
    SAME(value(set, 0), 2);
    struct message message;
    SAME(msgrcv(queue, &message, ROOM, 7, 0), 18);
    CHECK(strcmp(message.text, "from a grandchild") == 0);
    SAME(attachments(), before + 3);

    // A child that is killed takes its attachments with it, and what it would undo is undone.
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        does(set, 0, -1, SEM_UNDO);
        one[101] = 9;
        for (;;)
            pause();
    }
    while (one[101] != 9)
        sched_yield();
    SAME(attachments(), before + 6);
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    SAME(attachments(), before + 3);
    SAME(value(set, 0), 2);

    // exec gives all of it up; the program begins anew.
    char text[16];
    snprintf(text, sizeof text, "0x%x", (unsigned)key);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", "guest", "maps-again", text, NULL);
        _exit(98);
    }
    ends_well(child);
    SAME(one[100], 4);
    SAME(attachments(), before + 3);
    CHECK(shmdt((const void *)one) == 0 && shmdt((const void *)other) == 0);
    CHECK(shmdt((const void *)read_only) == 0);
    SAME(attachments(), before);
    does(set, 0, -2, 0);
}

static void maps_again(void)
{
    volatile char *at = attached(0);
    SAME(at[100], 3);
    at[100] = 4;
}

// A text of which every byte follows from the type.
static void fill(struct message *message, long type)
{
    message->type = type;
    for (int n = 0; n < TEXT; n++)
        message->text[n] = (char)(type * 7 + n);
}

static void work(unsigned long long with)
{
    struct board *board = attached(0);
    int set = semget(key, 0, 0), queue = msgget(key, 0);
    uint64_t me = with << 32 | (uint64_t)getpid();
    static struct message message, wanted;
    seed("4712");
    while (!board->stop) {
        does(set, 0, -1, SEM_UNDO);
        board->inside = me;
        uint64_t count = board->count + 1;
        board->count = count;
        if (below(16) == 0)
            sched_yield();
        board->again = count;
        SAME(board->inside, me);
        does(set, 0, 1, SEM_UNDO);
        fill(&message, 1 + (long)below(5));
        if (msgsnd(queue, &message, TEXT, IPC_NOWAIT) == -1)
            SAME(errno, EAGAIN);
        ssize_t got = msgrcv(queue, &message, ROOM, below(2) ? -3 : 0, IPC_NOWAIT);
        if (got == -1) {
            SAME(errno, ENOMSG);
            continue;
        }
        SAME(got, TEXT);
        fill(&wanted, message.type);
        CHECK(memcmp(message.text, wanted.text, TEXT) == 0);
    }
}

static pid_t worker(int number)
{
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        work((unsigned long long)number);
        _exit(0);
    }
    return child;
}

static void storm(int processes)
{
    struct board *board = attached(0);
    pid_t children[64];
    CHECK(processes <= 64);
    for (int n = 0; n < processes; n++)
        children[n] = worker(n);
    seed("4711");
    while (!board->stop) {
        struct timespec moment = {.tv_nsec = 1000 * (long)below(20000)};
        nanosleep(&moment, NULL);
        unsigned victim = below((unsigned)processes);
        int status;
        kill(children[victim], SIGKILL);
        CHECK(waitpid(children[victim], &status, 0) == children[victim]);
        CHECK(WIFSIGNALED(status) || status == 0);
        children[victim] = worker((int)victim);
    }
    for (int n = 0; n < processes; n++)
        ends_well(children[n]);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    key = (key_t)strtoul(argv[2], NULL, 0);
    if (strcmp(argv[1], "maps") == 0)
        maps();
    else if (strcmp(argv[1], "maps-again") == 0)
        maps_again();
    else if (strcmp(argv[1], "storm") == 0 && argc == 4)
        storm(atoi(argv[3]));
    else
        return 2;
    return 0;
}
