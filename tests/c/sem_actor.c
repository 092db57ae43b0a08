// SPDX-License-Identifier: MIT OR Apache-2.0
// Does the calls on semaphore sets that it is told on stdin, one a line, and answers each with one
// line: `= VALUE`, or `! ERRNO`. The tests hold several of these in several domains. Numbers are as
// in C.
//
//   up                       -> 0
//   get KEY SEMS FLAGS       -> id
//   op ID SEM BY FLAGS       semop with one operation
//   two ID SEM BY SEM BY     semop with two, with SEM_UNDO
//   ctl ID SEM COMMAND VALUE semctl with a command that takes a number or nothing
//   set ID UID MODE          IPC_SET
//   times ID                 -> sem_otime, sem_ctime
//   catch SIGNAL             a handler that does nothing, with SA_RESTART
#include "sem.h"

static void answer(long value)
{
    if (value == -1)
        printf("! %d\n", errno);
    else
        printf("= %ld\n", value);
}

static void nothing(int signal)
{
    (void)signal;
}

int main(void)
{
    char line[256], verb[16];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char words[5][32] = {"", "", "", "", ""};
        int n[5];
        if (sscanf(line, "%15s %31s %31s %31s %31s %31s", verb, words[0], words[1], words[2], words[3],
                   words[4]) < 1)
            continue;
        for (int i = 0; i < 5; i++)
            n[i] = (int)strtol(words[i], NULL, 0);
        if (strcmp(verb, "up") == 0) {
            answer(0);
        } else if (strcmp(verb, "get") == 0) {
            answer(semget(n[0], n[1], n[2]));
        } else if (strcmp(verb, "op") == 0) {
            answer(op(n[0], n[1], n[2], n[3]));
        } else if (strcmp(verb, "two") == 0) {
            answer(semop(n[0], OPS({(unsigned short)n[1], (short)n[2], UNDO},
                                   {(unsigned short)n[3], (short)n[4], UNDO})));
        } else if (strcmp(verb, "ctl") == 0) {
            answer(semctl(n[0], n[1], n[2], (union semun){.val = n[3]}));
        } else if (strcmp(verb, "set") == 0) {
            struct semid_ds ds = {.sem_perm = {.uid = (uid_t)n[1], .mode = (mode_t)n[2]}};
            answer(semctl(n[0], 0, IPC_SET, (union semun){.buf = &ds}));
        } else if (strcmp(verb, "times") == 0) {
            struct semid_ds ds;
            if (semctl(n[0], 0, IPC_STAT, (union semun){.buf = &ds}) == 0)
                printf("= %ld %ld\n", (long)ds.sem_otime, (long)ds.sem_ctime);
            else
                answer(-1);
        } else if (strcmp(verb, "catch") == 0) {
            struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
            answer(sigaction(n[0], &action, NULL));
        } else {
            fprintf(stderr, "what is '%s'?\n", verb);
            return 1;
        }
        fflush(stdout);
    }
    return 0;
}
