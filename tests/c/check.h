// SPDX-License-Identifier: MIT OR Apache-2.0
// What the directed test programs share: checks that name their line, gates between processes,
// and short forms of the calls. Each program is `PROGRAM SCENARIO [ARGS]`; it exits with 0 when
// the kernel's rules were kept. They are run natively first, so the kernel judges the programs.
#ifndef CHECK_H
#define CHECK_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define KEY 0x5653484d
#define NOBODY 65534

// The line of the first check that failed in any process of the program: a process that has
// closed its stderr can still say where it failed.
static int *failed_line;

__attribute__((constructor)) static void make_failed_line(void)
{
    failed_line = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (failed_line == MAP_FAILED)
        _exit(97);
}

static inline void check_failed(const char *file, int line, const char *what, int error)
{
    if (*failed_line == 0)
        *failed_line = line;
    dprintf(2, "%s:%d: not true: %s (errno %d: %s)\n", file, line, what, error, strerror(error));
    _exit(99);
}

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition))                                                                       \
            check_failed(__FILE__, __LINE__, #condition, errno);                                \
    } while (0)

// Checks that `a` and `b` are the same number, and shows both when they are not.
#define SAME(a, b)                                                                              \
    do {                                                                                        \
        long long first_ = (long long)(a), second_ = (long long)(b);                            \
        if (first_ != second_) {                                                                \
            dprintf(2, "%lld is not %lld\n", first_, second_);                                  \
            check_failed(__FILE__, __LINE__, #a " == " #b, errno);                              \
        }                                                                                       \
    } while (0)

// Checks that a call fails with `-1` and the errno that is named.
#define FAILS(error, call)                                                                      \
    do {                                                                                        \
        errno = 0;                                                                              \
        SAME((intptr_t)(call), -1);                                                             \
        SAME(errno, error);                                                                     \
    } while (0)

struct gate {
    int fd[2];
};

static inline struct gate gate_new(void)
{
    struct gate gate;
    CHECK(pipe2(gate.fd, O_CLOEXEC) == 0);
    return gate;
}

static inline void gate_open(struct gate *gate)
{
    CHECK(write(gate->fd[1], "x", 1) == 1);
}

static inline void gate_pass(struct gate *gate)
{
    char byte;
    ssize_t got;
    do
        got = read(gate->fd[0], &byte, 1);
    while (got < 0 && errno == EINTR);
    CHECK(got == 1);
}

static inline void wait_ok(pid_t child)
{
    int status = 0;
    pid_t got;
    do
        got = waitpid(child, &status, 0);
    while (got < 0 && errno == EINTR);
    SAME(got, child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        dprintf(2, "child: status 0x%x, first failure at line %d\n", status, *failed_line);
        CHECK(!"the child succeeded");
    }
}

static inline void wait_killed(pid_t child)
{
    int status = 0;
    CHECK(kill(child, SIGKILL) == 0);
    SAME(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static inline int make(key_t key, size_t size)
{
    int id = shmget(key, size, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(id >= 0);
    return id;
}

static inline volatile char *attach(int id)
{
    void *at = shmat(id, NULL, 0);
    CHECK(at != (void *)-1);
    return at;
}

static inline void detach(volatile char *at)
{
    CHECK(shmdt((const void *)at) == 0);
}

static inline void destroy(int id)
{
    CHECK(shmctl(id, IPC_RMID, NULL) == 0);
}

static inline struct shmid_ds stat_of(int id)
{
    struct shmid_ds ds;
    memset(&ds, 0, sizeof ds);
    CHECK(shmctl(id, IPC_STAT, &ds) == 0);
    return ds;
}

static inline long nattch(int id)
{
    return (long)stat_of(id).shm_nattch;
}

static inline void handle(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    CHECK(sigaction(signal, &action, NULL) == 0);
}

// What a file of /proc says. A thread is known by its own number too.
static inline void proc_of(pid_t pid, const char *name, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    ssize_t got = read(fd, text, size - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
}

// The letter that /proc has for the state of a process.
static inline char state_of(pid_t pid)
{
    char text[512];
    proc_of(pid, "stat", text, sizeof text);
    char *end = strrchr(text, ')');
    CHECK(end != NULL);
    return end[2];
}

static inline void until_state(pid_t pid, char state)
{
    while (state_of(pid) != state)
        sched_yield();
}

// The next name that a sleeper wrote.
static inline char told_by(struct gate *told)
{
    char name;
    CHECK(read(told->fd[0], &name, 1) == 1);
    return name;
}

// Waits until another second has begun, as the kernel's clock for files and IPC sees it.
static inline void next_second(void)
{
    struct timespec now;
    time_t last = time(NULL);
    do {
        nanosleep(&(struct timespec){0, 5000000}, NULL);
        CHECK(clock_gettime(CLOCK_REALTIME_COARSE, &now) == 0);
    } while (now.tv_sec == last);
}

// Processor time of a process, in ticks.
static inline void cpu_of(pid_t pid, unsigned long *ticks)
{
    char text[512];
    proc_of(pid, "stat", text, sizeof text);
    unsigned long user, system;
    SAME(sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), 2);
    *ticks = user + system;
}

// How often a process has slept.
static inline long switches_of(pid_t pid)
{
    char path[64], line[256];
    long count = -1;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        sscanf(line, "voluntary_ctxt_switches: %ld", &count);
    fclose(file);
    CHECK(count >= 0);
    return count;
}

// Whether this is a guest of Xen, which may be emulated: some twenty times as slow.
static inline int in_guest(void)
{
    return getenv("VSHMEM_TEST_GUESTS") != NULL;
}

// How often to do what is done `all` times elsewhere.
static inline int share(int all)
{
    return in_guest() ? (all + 19) / 20 : all;
}

// Six signals that end a process, whatever it was started with: a shell starts what runs in the background with
// some of them ignored.
static inline const int *fatal_signals(void)
{
    static int fatal[6];
    const int all[6] = {SIGTERM, SIGINT, SIGHUP, SIGALRM, SIGUSR1, SIGRTMAX};
    for (int n = 0; n < 6; n++) {
        fatal[n] = all[n];
        CHECK(signal(fatal[n], SIG_DFL) != SIG_ERR);
    }
    return fatal;
}

struct scenario {
    const char *name;
    void (*run)(char **args);
};

static inline int run_scenario(int argc, char **argv, const struct scenario *all, size_t count)
{
    for (size_t i = 0; argc > 1 && i < count; i++) {
        if (strcmp(argv[1], all[i].name) == 0) {
            all[i].run(argv + 2);
            return *failed_line == 0 ? 0 : 99;
        }
    }
    fprintf(stderr, "%s: there is no such scenario\n", argc > 1 ? argv[1] : "(none)");
    return 96;
}

#define SCENARIOS(...)                                                                          \
    int main(int argc, char **argv)                                                             \
    {                                                                                           \
        static const struct scenario all[] = {__VA_ARGS__};                                     \
        return run_scenario(argc, argv, all, sizeof all / sizeof all[0]);                       \
    }

#endif
