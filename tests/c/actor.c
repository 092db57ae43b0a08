// SPDX-License-Identifier: MIT OR Apache-2.0
// Does what it is told on stdin, one call a line, and answers each with one line: `= VALUE...`, or
// `! ERRNO`. The tests hold several of these in several domains. Numbers are as in C.
//
//   up                     -> 0              at ID FLAGS    -> number of the attachment
//   get KEY SIZE FLAGS     -> id
//   dt N                                     peek N OFFSET  -> byte
//   poke N OFFSET BYTE                       rm ID
//   word N OFFSET          -> the eight bytes there, read at once
//   set ID UID MODE                          stat ID -> nattch lpid cpid mode key size owner
//   many KEY COUNT         -> first failure's errno, how many were made; ids are remembered
//   drop                   -> removes what `many` made, how many
//   child                  -> pid of a child that holds what is attached here and waits
//   end PID                -> kills such a child and waits for it
//   writable N             -> makes an attachment writable
//   limit WHAT N           -> sets RLIMIT_NOFILE (files) or RLIMIT_AS (bytes), -1: to the hard one
//   fill                   -> opens files until there is no number left, how many
//   unfill                 -> closes them
//   list                   -> how many segments SHM_INFO counts
#include "check.h"

enum { MOST = 8192 };

static void *attached[MOST];
static int attachments, ids[MOST], made, filled[MOST], fills;

static void answer(long value)
{
    if (value == -1)
        printf("! %d\n", errno);
    else
        printf("= %ld\n", value);
}

static void stat_line(int id)
{
    struct shmid_ds ds;
    if (shmctl(id, IPC_STAT, &ds) != 0) {
        answer(-1);
        return;
    }
    printf("= %lu %d %d %u %d %zu %u\n", (unsigned long)ds.shm_nattch, ds.shm_lpid, ds.shm_cpid,
           ds.shm_perm.mode, ds.shm_perm.__key, ds.shm_segsz, ds.shm_perm.uid);
}

static void do_many(key_t key, long count)
{
    int error = 0;
    while (made < MOST && made < count && error == 0) {
        ids[made] = shmget(key + made, PAGE, IPC_CREAT | IPC_EXCL | 0600);
        if (ids[made] < 0)
            error = errno;
        else
            made++;
    }
    printf("= %d %d\n", error, made);
}

static void do_limit(const char *what, long value)
{
    int resource = strcmp(what, "files") == 0 ? RLIMIT_NOFILE : RLIMIT_AS;
    struct rlimit limit;
    CHECK(getrlimit(resource, &limit) == 0);
    limit.rlim_cur = value < 0 ? limit.rlim_max : (rlim_t)value;
    answer(setrlimit(resource, &limit));
}

int main(void)
{
    char line[256], verb[16];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char words[3][32] = {"", "", ""};
        if (sscanf(line, "%15s %31s %31s %31s", verb, words[0], words[1], words[2]) < 1)
            continue;
        long a = strtol(words[0], NULL, 0), b = strtol(words[1], NULL, 0);
        long c = strtol(words[2], NULL, 0);
        volatile unsigned char *at = a >= 0 && a < attachments ? attached[a] : NULL;
        if (strcmp(verb, "up") == 0) {
            answer(0);
        } else if (strcmp(verb, "get") == 0) {
            answer(shmget((key_t)a, (size_t)b, (int)c));
        } else if (strcmp(verb, "at") == 0) {
            CHECK(attachments < MOST);
            attached[attachments] = shmat((int)a, NULL, (int)b);
            answer(attached[attachments] == (void *)-1 ? -1 : attachments++);
        } else if (strcmp(verb, "dt") == 0) {
            answer(shmdt((const void *)at));
        } else if (strcmp(verb, "peek") == 0) {
            answer(at[b]);
        } else if (strcmp(verb, "word") == 0) {
            answer(*(volatile long *)(at + b));
        } else if (strcmp(verb, "poke") == 0) {
            at[b] = (unsigned char)c;
            answer(0);
        } else if (strcmp(verb, "writable") == 0) {
            answer(mprotect((void *)at, PAGE, PROT_READ | PROT_WRITE));
        } else if (strcmp(verb, "rm") == 0) {
            answer(shmctl((int)a, IPC_RMID, NULL));
        } else if (strcmp(verb, "set") == 0) {
            struct shmid_ds ds = {.shm_perm = {.uid = (uid_t)b, .mode = (mode_t)c}};
            answer(shmctl((int)a, IPC_SET, &ds));
        } else if (strcmp(verb, "stat") == 0) {
            stat_line((int)a);
        } else if (strcmp(verb, "many") == 0) {
            do_many((key_t)a, b);
        } else if (strcmp(verb, "drop") == 0) {
            int dropped = 0;
            while (made > 0)
                dropped += shmctl(ids[--made], IPC_RMID, NULL) == 0;
            answer(dropped);
        } else if (strcmp(verb, "child") == 0) {
            pid_t child = fork();
            if (child == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                    pause();
            }
            answer(child);
        } else if (strcmp(verb, "end") == 0) {
            int status;
            answer(kill((pid_t)a, SIGKILL) == 0 ? waitpid((pid_t)a, &status, 0) : -1);
        } else if (strcmp(verb, "limit") == 0) {
            do_limit(words[0], b);
        } else if (strcmp(verb, "fill") == 0) {
            while (fills < MOST && (filled[fills] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
                fills++;
            answer(fills);
        } else if (strcmp(verb, "unfill") == 0) {
            while (fills > 0)
                close(filled[--fills]);
            answer(0);
        } else if (strcmp(verb, "list") == 0) {
            struct shm_info info;
            answer(shmctl(0, SHM_INFO, (struct shmid_ds *)&info) < 0 ? -1 : info.used_ids);
        } else {
            fprintf(stderr, "what is '%s'?\n", verb);
            return 1;
        }
        fflush(stdout);
    }
    return 0;
}
