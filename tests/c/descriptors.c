// SPDX-License-Identifier: MIT OR Apache-2.0
// Programs that close, reuse or run out of descriptors, or leave their root directory. The
// kernel's shm calls need no descriptor, so nothing that a program does with its own may disturb
// them, nor they the program's files.
#include "check.h"
#include <dirent.h>
#include <sys/socket.h>

enum { NUMBERS = 1024 };

static void close_by_closefrom(void) { closefrom(3); }
static void close_by_range(void) { CHECK(close_range(3, ~0U, 0) == 0); }

static void close_one_by_one(void)
{
    for (int fd = 3; fd < NUMBERS; fd++)
        close(fd);
}

static void close_even_stderr(void) { closefrom(0); }

static void (*const ways[])(void) = {close_by_closefrom, close_by_range, close_one_by_one,
                                     close_even_stderr};

// Everything that a program can ask for, with `p` attached to `id` before.
static void use_everything(int id, volatile char *p, long others)
{
    p[7] = 7;
    SAME(nattch(id), 1 + others);
    volatile char *again = attach(id);
    CHECK(again[7] == 7);
    SAME(nattch(id), 2 + others);
    int known = shmget(KEY, PAGE, 0);
    SAME(known, id);
    FAILS(EEXIST, shmget(KEY, PAGE, IPC_CREAT | IPC_EXCL | 0600));
    int other = make(KEY + 1, 5 * PAGE);
    volatile char *q = attach(other);
    q[4 * PAGE] = 1;
    pid_t child = fork();
    if (child == 0) {
        SAME(nattch(id), 4 + others);
        CHECK(q[4 * PAGE] == 1);
        volatile char *third = attach(id);
        detach(third);
        _exit(0);
    }
    wait_ok(child);
    SAME(nattch(id), 2 + others);
    SAME(nattch(other), 1);
    detach(q);
    destroy(other);
    FAILS(EINVAL, shmctl(other, IPC_STAT, &(struct shmid_ds){0}));
    detach(again);
    SAME(nattch(id), 1 + others);
}

static void closed_and_goes_on(char **args)
{
    (void)args;
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        int id = make(KEY, PAGE);
        volatile int *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                                    -1, 0);
        pid_t child = fork();
        if (child == 0) {
            CHECK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){NUMBERS, NUMBERS}) == 0);
            volatile char *p = attach(id);
            ways[way]();
            shared[0] = 1;
            while (shared[1] == 0)
                usleep(1000);
            use_everything(id, p, 0);
            ways[way]();
            use_everything(id, p, 0);
            ways[way]();
            shared[0] = 2;
            while (shared[1] == 1)
                usleep(1000);
            _exit(0);
        }
        while (shared[0] < 1)
            usleep(1000);
        // It has closed what it had, and is there all the same.
        SAME(nattch(id), 1);
        nanosleep(&(struct timespec){0, 600000000}, NULL);
        SAME(nattch(id), 1);
        shared[1] = 1;
        int status = 0;
        while (shared[0] < 2 && waitpid(child, &status, WNOHANG) == 0)
            usleep(1000);
        SAME(*failed_line, 0);
        SAME(nattch(id), 1);
        shared[1] = 2;
        wait_ok(child);
        SAME(nattch(id), 0);

        // The same, ended from outside.
        child = fork();
        if (child == 0) {
            attach(id);
            attach(id);
            ways[way]();
            shared[0] = 3;
            pause();
        }
        while (shared[0] < 3)
            usleep(1000);
        SAME(nattch(id), 2);
        wait_killed(child);
        SAME(nattch(id), 0);
        destroy(id);
        CHECK(munmap((void *)shared, PAGE) == 0);
    }
}

static ino_t inode[NUMBERS];
static int far_end[NUMBERS];

static ino_t inode_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

// Puts files and sockets of the program's own at every number from `low` to `high`, whatever
// was there.
static void occupy(int low, int high)
{
    for (int fd = low; fd < high; fd++) {
        if (fd % 2 == 0) {
            char path[] = "/tmp/vshmem-own-XXXXXX";
            int file = mkostemp(path, O_CLOEXEC);
            CHECK(file >= 0 && unlink(path) == 0);
            CHECK(write(file, "precious", 8) == 8);
            CHECK(file == fd || (dup2(file, fd) == fd && close(file) == 0));
        } else {
            // The other end of each socket shows whether anything was written to this one.
            int pair[2];
            CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
            far_end[fd] = fcntl(pair[1], F_DUPFD_CLOEXEC, NUMBERS);
            CHECK(far_end[fd] >= 0 && close(pair[1]) == 0);
            CHECK(pair[0] == fd || (dup2(pair[0], fd) == fd && close(pair[0]) == 0));
        }
        inode[fd] = inode_of(fd);
    }
}

static void check_untouched(int low, int high)
{
    for (int fd = low; fd < high; fd++) {
        SAME(inode_of(fd), inode[fd]);
        char text[16];
        if (fd % 2 == 0) {
            SAME(lseek(fd, 0, SEEK_CUR), 8);
            SAME(pread(fd, text, sizeof text, 0), 8);
            CHECK(memcmp(text, "precious", 8) == 0);
        } else {
            FAILS(EAGAIN, recv(far_end[fd], text, sizeof text, MSG_DONTWAIT));
        }
    }
}

// `low high`: the numbers that the program takes over by dup2, without closing first.
static void own_files_at_the_numbers(char **args)
{
    int low = atoi(args[0]), high = atoi(args[1]);
    CHECK(high <= NUMBERS);
    CHECK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){3 * NUMBERS, 3 * NUMBERS}) == 0);
    int id = make(KEY, PAGE);
    volatile char *p = attach(id);
    for (int round = 0; round < 2; round++) {
        occupy(low, high);
        use_everything(id, p, 0);
        check_untouched(low, high);
        // Then close all and let the files be the first to take the numbers.
        for (int fd = 3; fd < 3 * NUMBERS; fd++)
            close(fd);
        occupy(low, high);
        use_everything(id, p, 0);
        check_untouched(low, high);
    }
    pid_t child = fork();
    if (child == 0) {
        use_everything(id, p, 1);
        check_untouched(low, high);
        _exit(0);
    }
    wait_ok(child);
    check_untouched(low, high);
    SAME(nattch(id), 1);
    detach(p);
    destroy(id);
}

// No descriptor but the program's own may be below 3 or stay open over exec.
static void none_is_low_or_inherited(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    volatile char *p = attach(id);
    int own = attach(make(KEY + 1, PAGE))[0];
    CHECK(own == 0 && p[0] == 0);
    closefrom(0);
    CHECK(shmget(KEY + 2, PAGE, IPC_CREAT | 0600) >= 0);
    for (int fd = 0; fd < 3; fd++)
        SAME(inode_of(fd), 0);
    DIR *fds = opendir("/proc/self/fd");
    CHECK(fds != NULL);
    struct dirent *entry;
    while ((entry = readdir(fds)) != NULL) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.')
            CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    }
}

// Started with 0, 1 and 2 closed: they stay free for the program.
static void started_without_stdio(char **args)
{
    (void)args;
    for (int fd = 0; fd < 3; fd++)
        SAME(inode_of(fd), 0);
    int id = make(KEY, PAGE);
    attach(id);
    for (int fd = 0; fd < 3; fd++)
        SAME(open("/dev/null", O_RDWR | O_CLOEXEC), fd);
    SAME(nattch(id), 1);
    destroy(id);
}

static void in_another_root(char **args)
{
    (void)args;
    int id = make(KEY, PAGE);
    CHECK(shmctl(id, IPC_SET, &(struct shmid_ds){.shm_perm = {.uid = NOBODY, .mode = 0600}}) == 0);
    volatile char *p = attach(id);
    char root[] = "/tmp/vshmem-root-XXXXXX";
    CHECK(mkdtemp(root) != NULL);
    pid_t child = fork();
    if (child == 0) {
        CHECK(chdir(root) == 0 && chroot(".") == 0);
        use_everything(id, p, 1);
        CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
        // The parent's attachment is one more; what is new is the caller's own.
        use_everything(id, p, 1);
        _exit(0);
    }
    wait_ok(child);
    CHECK(rmdir(root) == 0);
    SAME(nattch(id), 1);
    destroy(id);
}

// Every number in use: the calls may say so, but nothing may break, and it passes. `first`: the
// limit is set before the first call; `later`: after it, and so low that what a library may have
// open is above it, so that shmdt too may have to say so.
static void all_numbers_used(char **args)
{
    int later = strcmp(args[0], "later") == 0;
    struct rlimit few = {later ? 64 : 300, 3 * NUMBERS};
    if (!later)
        CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    int id = make(KEY, PAGE), known = make(KEY + 1, PAGE);
    volatile char *p = attach(id);
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    while (open("/dev/null", O_RDONLY) >= 0)
        ;
    SAME(errno, EMFILE);
    for (int round = 0; round < 200; round++) {
        int errors[4] = {0};
        errno = 0;
        int made = shmget(KEY + 2, PAGE, IPC_CREAT | IPC_EXCL | 0600);
        errors[0] = made < 0 ? errno : 0;
        errno = 0;
        void *at = shmat(known, NULL, 0);
        errors[1] = at == (void *)-1 ? errno : 0;
        errno = 0;
        void *other = made < 0 ? NULL : shmat(made, NULL, 0);
        errors[2] = other == (void *)-1 ? errno : 0;
        errno = 0;
        pid_t child = fork();
        if (child == 0) {
            p[1] = 1;
            _exit(0);
        }
        errors[3] = child < 0 ? errno : 0;
        if (child > 0)
            wait_ok(child);
        for (int i = 0; i < 4; i++)
            CHECK(errors[i] == 0 || errors[i] == EMFILE || errors[i] == ENFILE ||
                  errors[i] == ENOMEM || errors[i] == EAGAIN);
        if (at != (void *)-1)
            CHECK(shmdt(at) == 0 || (later && errno == EMFILE));
        if (made >= 0 && other != (void *)-1)
            CHECK(shmdt(other) == 0 || (later && errno == EMFILE));
        if (made >= 0)
            destroy(made);
    }
    // What needs nothing new goes on working, and all of it once there is room again.
    p[0] = 1;
    if (!later) {
        SAME(nattch(id), 1);
        detach(p);
        SAME(nattch(id), 0);
        p = attach(id);
    }
    closefrom(3);
    detach(p);
    SAME(nattch(id), 0);
    p = attach(id);
    destroy(known);
    use_everything(id, p, 0);
    destroy(id);
}

// Started with no number to spare at all.
static void none_from_the_start(char **args)
{
    (void)args;
    CHECK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){3, 3 * NUMBERS}) == 0);
    int id = shmget(KEY, PAGE, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(id >= 0 || errno == EMFILE || errno == ENFILE || errno == ENOMEM);
    CHECK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){64, 3 * NUMBERS}) == 0);
    id = shmget(KEY, PAGE, IPC_CREAT | 0600);
    CHECK(id >= 0);
    use_everything(id, attach(id), 0);
    destroy(id);
}

SCENARIOS({"closed_and_goes_on", closed_and_goes_on},
          {"own_files_at_the_numbers", own_files_at_the_numbers},
          {"none_is_low_or_inherited", none_is_low_or_inherited},
          {"started_without_stdio", started_without_stdio}, {"in_another_root", in_another_root},
          {"all_numbers_used", all_numbers_used}, {"none_from_the_start", none_from_the_start})
