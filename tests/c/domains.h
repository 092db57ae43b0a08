// SPDX-License-Identifier: MIT OR Apache-2.0
// Many processes of one program, spread over the domains that DOMAINS names; natively that means
// nothing.
#ifndef DOMAINS_H
#define DOMAINS_H
#include "check.h"
#include "random.h"

// Starts the program anew, in a role of its own: `PROGRAM ROLE WITH ROUNDS`, as number so and so.
static inline pid_t start(int number, const char *role, unsigned long long with, const char *rounds)
{
    char *names = getenv("DOMAINS"), copy[256] = "", *domains[16], *rest, texts[1][32];
    int count = 0;
    snprintf(copy, sizeof copy, "%s", names ? names : "");
    for (char *name = strtok_r(copy, " ", &rest); name; name = strtok_r(NULL, " ", &rest))
        domains[count++] = name;
    snprintf(texts[0], sizeof texts[0], "%llu", with);
    char *arguments[] = {program_invocation_name, (char *)role, texts[0], (char *)rounds, NULL};
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        if (count > 0)
            setenv("VSHMEM_DOMAIN", domains[number % count], 1);
        execv("/proc/self/exe", arguments);
        _exit(98);
    }
    return child;
}

// Keeps so many processes of a role running, and kills them at random moments, in the end all.
static inline void kill_at_random(pid_t *children, int processes, int kills, const char *role)
{
    for (int n = 0; n < processes; n++)
        children[n] = start(n, role, (unsigned)n + 1, NULL);
    seed("4711");
    for (int n = 0; n < kills; n++) {
        unsigned victim = below((unsigned)processes);
        usleep(below(below(4) ? 2000 : 8000));
        // It must not have ended by itself.
        SAME(waitpid(children[victim], NULL, WNOHANG), 0);
        wait_killed(children[victim]);
        children[victim] = start((int)victim, role, 1000 + (unsigned)n, NULL);
    }
    // All together, then one after another.
    for (int n = 0; n < processes / 2; n++)
        CHECK(kill(children[n], SIGKILL) == 0);
    for (int n = 0; n < processes; n++)
        wait_killed(children[n]);
}

#endif
