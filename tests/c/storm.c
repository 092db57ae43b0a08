// SPDX-License-Identifier: MIT OR Apache-2.0
// A client that does everything at random, forever, and is killed by somebody at a random
// moment: `storm SEED`. What a call may answer while others do the same is checked; anything else
// ends it with status 99.
#include "check.h"
#include "random.h"

enum { KEYS = 6, HELD = 5 };

static int gone(void)
{
    return errno == EINVAL || errno == EIDRM;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    seed(argv[1]);
    volatile char *held[HELD] = {0};
    int children = 2;
    for (;;) {
        key_t key = KEY + (key_t)below(KEYS);
        size_t size = (size_t)(1 + below(4)) * PAGE;
        int id = shmget(key, 0, 0600), slot = (int)below(HELD);
        if (id < 0)
            CHECK(errno == ENOENT);
        switch (below(12)) {
        case 0:
            // The key may have been made by another in between, and be smaller.
            CHECK(shmget(key, size, IPC_CREAT | 0600) >= 0 || errno == EINVAL);
            break;
        case 1:
            if (id >= 0 && shmctl(id, IPC_RMID, NULL) != 0)
                CHECK(gone());
            break;
        case 2: {
            // Children of children, but no avalanche: a child has fewer to spare.
            if (children == 0)
                break;
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                children /= 2;
                for (int way = getpid() % 7; way > 0; way--)
                    below(2);
            } else if (below(4) == 0) {
                children--;
            } else {
                if (below(2) == 0)
                    below(1000) < 500 ? (void)sched_yield() : (void)usleep(below(2000));
                kill(child, SIGKILL);
                SAME(waitpid(child, NULL, 0), child);
            }
            break;
        }
        case 3: {
            struct shmid_ds ds;
            if (id >= 0 && shmctl(id, IPC_STAT, &ds) != 0)
                CHECK(gone());
            break;
        }
        default:
            if (held[slot] != NULL) {
                held[slot][0]++;
                detach(held[slot]);
                held[slot] = NULL;
            } else if (id >= 0) {
                void *at = shmat(id, NULL, 0);
                CHECK(at != (void *)-1 || gone());
                held[slot] = at == (void *)-1 ? NULL : at;
            }
        }
    }
}
