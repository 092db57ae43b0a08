// SPDX-License-Identifier: MIT OR Apache-2.0
// What a program reads in the files of /proc/sysvipc when it opens them with fopen, as ipcs does: a line
// for each construct, as the kernel writes it.
#include "check.h"
#include <sys/msg.h>
#include <sys/sem.h>

// The line of `id` in a file; "" if there is none.
static void line_of(const char *path, const char *mode, int id, char line[512])
{
    FILE *file = fopen(path, mode);
    CHECK(file != NULL);
    int found;
    do {
        if (fgets(line, 512, file) == NULL)
            line[0] = 0;
    } while (line[0] && !(sscanf(line, "%*d %d", &found) == 1 && found == id));
    CHECK(fclose(file) == 0);
}

static void lines_match(const char *path, int id, const char *want)
{
    char line[512];
    line_of(path, "r", id, line);
    if (strcmp(line, want) != 0)
        dprintf(2, "%s\nis not\n%s\n", line, want);
    CHECK(strcmp(line, want) == 0);
}

static void lines_are_the_kernels(char **args)
{
    (void)args;
    char want[512];
    int shm = shmget(KEY, 5000, 0640 | IPC_CREAT | IPC_EXCL);
    CHECK(shm >= 0);
    char *at = shmat(shm, NULL, 0);
    CHECK(at != (void *)-1);
    at[0] = 1;
    struct shmid_ds s;
    CHECK(shmctl(shm, IPC_STAT, &s) == 0);
    SAME(s.shm_nattch, 1);
    snprintf(want, sizeof want,
             "%10d %10d  %4o %21lu %5u %5u  %5lu %5u %5u %5u %5u %10llu %10llu %10llu %21lu %21lu\n",
             KEY, shm, s.shm_perm.mode, s.shm_segsz, (unsigned)s.shm_cpid, (unsigned)s.shm_lpid,
             s.shm_nattch, s.shm_perm.uid, s.shm_perm.gid, s.shm_perm.cuid, s.shm_perm.cgid,
             (unsigned long long)s.shm_atime, (unsigned long long)s.shm_dtime,
             (unsigned long long)s.shm_ctime, 4096UL, 0UL);
    lines_match("/proc/sysvipc/shm", shm, want);
    CHECK(shmctl(shm, IPC_RMID, NULL) == 0);
    char line[512];
    unsigned mode;
    line_of("/proc/sysvipc/shm", "r", shm, line);
    SAME(sscanf(line, "%*d %*d %o", &mode), 1);
    SAME(mode, 01640);
    CHECK(shmdt(at) == 0);
    lines_match("/proc/sysvipc/shm", shm, "");

    int sem = semget(KEY, 3, 0604 | IPC_CREAT | IPC_EXCL);
    CHECK(sem >= 0);
    CHECK(semop(sem, &(struct sembuf){1, 1, 0}, 1) == 0);
    struct semid_ds e;
    CHECK(semctl(sem, 0, IPC_STAT, &e) == 0);
    snprintf(want, sizeof want, "%10d %10d  %4o %10u %5u %5u %5u %5u %10llu %10llu\n", KEY, sem,
             e.sem_perm.mode, (unsigned)e.sem_nsems, e.sem_perm.uid, e.sem_perm.gid,
             e.sem_perm.cuid, e.sem_perm.cgid, (unsigned long long)e.sem_otime,
             (unsigned long long)e.sem_ctime);
    lines_match("/proc/sysvipc/sem", sem, want);
    CHECK(semctl(sem, 0, IPC_RMID) == 0);
    lines_match("/proc/sysvipc/sem", sem, "");

    int msg = msgget(KEY, 0666 | IPC_CREAT | IPC_EXCL);
    CHECK(msg >= 0);
    struct {
        long type;
        char text[9];
    } message = {1, "8 letters"};
    CHECK(msgsnd(msg, &message, 9, 0) == 0);
    CHECK(msgsnd(msg, &message, 2, 0) == 0);
    CHECK(msgrcv(msg, &message, 9, 0, 0) == 9);
    struct msqid_ds m;
    CHECK(msgctl(msg, IPC_STAT, &m) == 0);
    snprintf(want, sizeof want,
             "%10d %10d  %4o  %10lu %10lu %5u %5u %5u %5u %5u %5u %10llu %10llu %10llu\n", KEY, msg,
             m.msg_perm.mode, (unsigned long)m.__msg_cbytes, (unsigned long)m.msg_qnum,
             (unsigned)m.msg_lspid, (unsigned)m.msg_lrpid, m.msg_perm.uid, m.msg_perm.gid,
             m.msg_perm.cuid, m.msg_perm.cgid, (unsigned long long)m.msg_stime,
             (unsigned long long)m.msg_rtime, (unsigned long long)m.msg_ctime);
    lines_match("/proc/sysvipc/msg", msg, want);
    CHECK(msgctl(msg, IPC_RMID, NULL) == 0);
    lines_match("/proc/sysvipc/msg", msg, "");
}

static void no_file(int error, const char *path, const char *mode)
{
    errno = 0;
    CHECK(fopen(path, mode) == NULL);
    SAME(errno, error);
}

// What fopen does otherwise.
static void other_files_are_opened_as_ever(char **args)
{
    (void)args;
    int id = shmget(KEY, 1, 0600 | IPC_CREAT | IPC_EXCL);
    CHECK(id >= 0);
    for (int n = 0; n < 2; n++) {
        FILE *file = fopen("/proc/sysvipc/shm", n ? "re" : "r");
        CHECK(file != NULL);
        SAME(fcntl(fileno(file), F_GETFD), n ? FD_CLOEXEC : 0);
        CHECK(fputc('x', file) == EOF);
        CHECK(fclose(file) == 0);
    }
    char line[512];
    line_of("/proc/sysvipc/shm", "r", id, line);
    CHECK(line[0]);
    no_file(ENOENT, "/proc/sysvipc/none", "r");
    no_file(EFAULT, (const char *)8, "r");
    no_file(EINVAL, "/proc/sysvipc/shm", "x");
    no_file(EISDIR, "/proc/sysvipc", "w");
    FILE *file = fopen("/dev/zero", "r+");
    CHECK(file != NULL && fgetc(file) == 0 && fclose(file) == 0);
    CHECK(shmctl(id, IPC_RMID, NULL) == 0);
}

SCENARIOS({"lines_are_the_kernels", lines_are_the_kernels},
          {"other_files_are_opened_as_ever", other_files_are_opened_as_ever})
