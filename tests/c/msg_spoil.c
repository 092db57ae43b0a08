// SPDX-License-Identifier: MIT OR Apache-2.0
// A queue whose memory somebody writes anything into while others use it. `spoil` finds the queue's
// region in its own memory, where the library has mapped it, and writes until it is killed; `victim`
// sends and receives meanwhile. The victim may get any error and any text, but no more of it than it
// has room for, and each call ends: its own signals see to that where a call waits. Run under a
// checker of memory, it also shows that nothing beyond the region was looked at.
#include "msg.h"
#include "random.h"
#include <sys/time.h>

// Words of a queue's region, as docs/wire.md has them.
enum {
    LOCK = 8,
    FIRST_LINES = 32,
    JOURNAL_END = 160,
    TYPES_END = 224,
    WAITERS = 2048,
    WAITER_WORDS = 16,
    HEADERS = TYPES_END + WAITERS * WAITER_WORDS,
};

static uint64_t *region_of_queue(size_t *words)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long first, last;
        if (sscanf(line, "%lx-%lx rw-s", &first, &last) != 2 || strstr(line, " rw-s ") == NULL)
            continue;
        if (memcmp((void *)first, "VSHMEMQ1", 8) == 0) {
            fclose(maps);
            *words = (last - first) / 8;
            return (uint64_t *)first;
        }
    }
    CHECK(!"the region of a queue is mapped");
    return NULL;
}

// A number that a peer may well write there: an index or two, a size, a state, a token, anything.
static uint64_t garbage(void)
{
    uint64_t high = below(6), low = below(6);
    switch (below(8)) {
    case 0: return 0;
    case 1: return high << 32 | low;
    case 2: return (uint64_t)below(1u << 20) << 32 | below(4);
    case 3: return (uint64_t)below(4) << 40 | below(8);
    case 4: return UINT64_MAX;
    case 5: return (uint64_t)below(1u << 31) << 33 | below(1u << 31);
    case 6: return below(1u << 18);
    default: return (uint64_t)below(256) << (8 * below(8));
    }
}

// spoil KEY SEED: says "ready", then writes.
static void spoil(char **args)
{
    size_t words;
    struct message message = {.type = 1};
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    int id = msgget((key_t)strtoul(args[0], NULL, 0), 0600);
    CHECK(id >= 0);
    CHECK(msgsnd(id, &message, 1, NOWAIT) == 0 || errno == EAGAIN);
    volatile uint64_t *region = region_of_queue(&words);
    seed(args[1]);
    puts("ready");
    fflush(stdout);
    for (;;) {
        size_t at;
        switch (below(8)) {
        // Each of the words that calls begin with, but the constant ones.
        case 0: case 1: at = LOCK + below(FIRST_LINES - LOCK); break;
        case 2: at = FIRST_LINES + below(TYPES_END - FIRST_LINES); break;
        case 3: at = TYPES_END + below(WAITERS * WAITER_WORDS); break;
        case 4: at = TYPES_END + below(8 * WAITER_WORDS); break;
        case 5: case 6: at = HEADERS + below(64 * 16); break;
        default: at = below((unsigned)words); break;
        }
        if (at < words && at >= LOCK)
            region[at] = garbage();
        // Else hardly any call gets further: the lock is free, and the queue still that of its id.
        region[LOCK] = 0;
        region[LOCK + 1] = (uint32_t)id;
    }
}

static void nothing(int signal)
{
    (void)signal;
}

enum { GUARD = 64 };

// victim KEY SEED CALLS [PERIOD]: with no period, in us, between signals it makes no call that waits.
static void victim(char **args)
{
    unsigned calls = (unsigned)strtoul(args[2], NULL, 0);
    int id = msgget((key_t)strtoul(args[0], NULL, 0), IPC_CREAT | 0600);
    int period = args[3] != NULL ? atoi(args[3]) : 0;
    struct itimerval often = {{0, period}, {0, period}};
    // On the heap, where a checker knows the bounds.
    struct message *out = malloc(sizeof *out);
    CHECK(id >= 0 && out != NULL);
    seed(args[1]);
    memset(out, 'o', sizeof *out);
    handle(SIGALRM, nothing, 0);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    puts("ready");
    fflush(stdout);
    for (unsigned call = 0; call < calls; call++) {
        size_t size = below(3) == 0 ? below(8193) : below(100);
        int flags = period != 0 && below(16) == 0 ? 0 : IPC_NOWAIT;
        long type = 1 + (long)below(4);
        int result;
        if (below(2) == 0) {
            out->type = type;
            result = msgsnd(id, out, size, flags);
            CHECK(result == 0 || result == -1);
        } else {
            struct message *in = malloc(sizeof(long) + size + GUARD);
            CHECK(in != NULL);
            memset(in->text + size, 'g', GUARD);
            flags |= (below(2) ? MSG_NOERROR : 0) | (below(4) == 0 ? MSG_EXCEPT : 0);
            if (below(8) == 0)
                flags = MSG_COPY | IPC_NOWAIT;
            ssize_t got = msgrcv(id, in, size, below(3) == 0 ? -type : below(2) * type, flags);
            CHECK(got <= (ssize_t)size);
            for (int n = 0; n < GUARD; n++)
                SAME(in->text[size + (size_t)n], 'g');
            free(in);
        }
        if (below(64) == 0) {
            struct msqid_ds ds;
            msgctl(id, IPC_STAT, &ds);
        }
    }
    _exit(0);
}

SCENARIOS({"spoil", spoil}, {"victim", victim})
