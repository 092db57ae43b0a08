// SPDX-License-Identifier: MIT OR Apache-2.0
// Other identities, for programs that run as root.
#ifndef IDENTITY_H
#define IDENTITY_H
#include "check.h"
#include <grp.h>

enum { ALICE = 4001, BOB = 4002, STAFF = 4100, GUESTS = 4101 };

static inline void become(uid_t user, gid_t group)
{
    CHECK(setgroups(0, NULL) == 0 && setresgid(group, group, group) == 0);
    CHECK(setresuid(user, user, user) == 0);
}

// Runs `body` in a child with these ids and no supplementary groups.
#define AS(user, group, ...)                                                                    \
    do {                                                                                        \
        pid_t child_ = fork();                                                                  \
        CHECK(child_ >= 0);                                                                     \
        if (child_ == 0) {                                                                      \
            become(user, group);                                                                \
            __VA_ARGS__;                                                                        \
            _exit(0);                                                                           \
        }                                                                                       \
        wait_ok(child_);                                                                        \
    } while (0)

#endif
