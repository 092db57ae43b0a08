// SPDX-License-Identifier: MIT OR Apache-2.0
// Shm calls from many threads, from signal handlers, around forks in threaded programs and in
// threads that are cancelled. Natively each call is one system call, so all of this is allowed.
#include "check.h"
#include <sys/time.h>

static int segment;
static volatile int stop;

static void *churn_one(void *loops)
{
    for (long i = 0; i < (long)loops; i++) {
        volatile char *p = attach(segment);
        p[i % PAGE] = 1;
        if (i % 50 == 0)
            CHECK(nattch(segment) >= 1);
        detach(p);
    }
    return NULL;
}

// Children of this process may hold what its threads have attached at the moment of a fork.
static int with_children;

static void *churn_own(void *loops)
{
    for (long i = 0; i < (long)loops; i++) {
        int id = make(IPC_PRIVATE, PAGE);
        volatile char *p = attach(id);
        p[0] = 1;
        volatile char *q = attach(id);
        CHECK(with_children ? nattch(id) >= 2 : nattch(id) == 2);
        destroy(id);
        CHECK(with_children ? nattch(id) >= 2 : nattch(id) == 2);
        detach(p);
        SAME(q[0], 1);
        detach(q);
        if (!with_children)
            FAILS(EINVAL, shmctl(id, IPC_STAT, &(struct shmid_ds){0}));
    }
    return NULL;
}

static void in_threads(int count, void *(*body)(void *), long argument)
{
    pthread_t threads[16];
    for (int i = 0; i < count; i++)
        CHECK(pthread_create(&threads[i], NULL, body, (void *)argument) == 0);
    for (int i = 0; i < count; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void attach_and_detach_at_once(char **args)
{
    (void)args;
    segment = make(KEY, PAGE);
    in_threads(8, churn_one, 1000);
    SAME(nattch(segment), 0);
    in_threads(8, churn_own, 100);
    destroy(segment);
    struct shm_info info;
    CHECK(shmctl(0, SHM_INFO, (struct shmid_ds *)&info) >= 0);
    SAME(info.used_ids, 0);
}

static int winners;

static void *race_for_keys(void *rounds)
{
    for (long key = 1; key <= (long)rounds; key++) {
        if (shmget((key_t)key, PAGE, IPC_CREAT | IPC_EXCL | 0600) >= 0)
            __atomic_fetch_add(&winners, 1, __ATOMIC_SEQ_CST);
        else
            SAME(errno, EEXIST);
    }
    return NULL;
}

static void one_thread_wins_each_key(char **args)
{
    (void)args;
    in_threads(8, race_for_keys, 300);
    SAME(winners, 300);
}

static void *until_stopped(void *body)
{
    while (!stop)
        ((void *(*)(void *))body)((void *)1);
    return NULL;
}

static void child_of_threads(void)
{
    volatile char *p = attach(segment);
    p[0] = 1;
    CHECK(nattch(segment) >= 1);
    detach(p);
    churn_own((void *)2);
    int id = shmget(KEY + 1, PAGE, IPC_CREAT | 0600);
    CHECK(id >= 0);
    destroy(id);
    pid_t child = fork();
    if (child == 0) {
        detach(attach(segment));
        _exit(0);
    }
    wait_ok(child);
    _exit(0);
}

static void fork_among_threads(char **args)
{
    (void)args;
    pthread_t threads[4];
    segment = make(KEY, PAGE);
    with_children = 1;
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, until_stopped, i % 2 ? churn_one : churn_own) == 0);
    for (int i = 0; i < share(100); i++) {
        pid_t child = i % 4 == 3 ? _Fork() : fork();
        CHECK(child >= 0);
        if (child == 0)
            child_of_threads();
        wait_ok(child);
    }
    stop = 1;
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    SAME(nattch(segment), 0);
    destroy(segment);
    struct shm_info info;
    CHECK(shmctl(0, SHM_INFO, (struct shmid_ds *)&info) >= 0);
    SAME(info.used_ids, 0);
}

static volatile int handled;

static void handler(int signal)
{
    (void)signal;
    int before = errno;
    void *p = shmat(segment, NULL, 0);
    CHECK(p != (void *)-1);
    *(volatile char *)p = 2;
    struct shmid_ds ds;
    CHECK(shmctl(segment, IPC_STAT, &ds) == 0 && ds.shm_nattch >= 1);
    CHECK(shmdt(p) == 0);
    if (handled % 8 == 0) {
        int id = shmget(IPC_PRIVATE, PAGE, 0600);
        CHECK(id >= 0 && shmctl(id, IPC_RMID, NULL) == 0);
    }
    handled++;
    errno = before;
}

static void storm(long microseconds)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    // A fork begins anew when a signal comes: one has to have an end between two.
    if (in_guest())
        microseconds *= 50;
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

static void calm(void)
{
    CHECK(setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL) == 0);
}

static void handlers_call_too(char **args)
{
    (void)args;
    segment = make(KEY, PAGE);
    storm(150);
    while (handled < share(2000)) {
        churn_one((void *)20);
        churn_own((void *)1);
    }
    calm();
    SAME(nattch(segment), 0);
    destroy(segment);
}

static void handlers_call_among_threads_and_forks(char **args)
{
    (void)args;
    pthread_t threads[3];
    segment = make(KEY, PAGE);
    with_children = 1;
    storm(500);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, until_stopped, i % 2 ? churn_one : churn_own) == 0);
    for (int i = 0; i < share(40) || handled < share(500); i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            calm(); // a timer is not inherited, but what it has sent may be
            child_of_threads();
        }
        wait_ok(child);
    }
    stop = 1;
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    calm();
    SAME(nattch(segment), 0);
    destroy(segment);
}

static long balance;

static void *to_be_cancelled(void *unused)
{
    (void)unused;
    while (!stop) {
        // None of these calls is a cancellation point: a thread that is cancelled meanwhile ends
        // at pthread_testcancel, with nothing in its hands.
        int id = shmget(IPC_PRIVATE, PAGE, 0600);
        CHECK(id >= 0);
        __atomic_fetch_add(&balance, 1, __ATOMIC_SEQ_CST);
        volatile char *p = attach(id);
        p[0] = 1;
        SAME(nattch(id), 1);
        destroy(id);
        detach(p);
        detach(attach(segment));
        __atomic_fetch_sub(&balance, 1, __ATOMIC_SEQ_CST);
        pthread_testcancel();
    }
    return NULL;
}

static void cancelled_threads_leave_nothing(char **args)
{
    (void)args;
    segment = make(KEY, PAGE);
    for (int i = 0; i < share(300); i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, to_be_cancelled, NULL) == 0);
        usleep((useconds_t)(i * 7 % 400));
        CHECK(pthread_cancel(thread) == 0);
        void *result;
        CHECK(pthread_join(thread, &result) == 0);
        CHECK(result == PTHREAD_CANCELED);
        SAME(balance, 0);
        churn_one((void *)1);
    }
    SAME(nattch(segment), 0);
    destroy(segment);
    struct shm_info info;
    CHECK(shmctl(0, SHM_INFO, (struct shmid_ds *)&info) >= 0);
    SAME(info.used_ids, 0);
}

static void mask_now(sigset_t *mask)
{
    // The two signals that glibc hides would show in the raw call only.
    memset(mask, 0, sizeof *mask);
    CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, mask, 8) == 0);
}

// Runs a call that succeeds and sees that errno and the signal mask are what they were.
#define KEEPS(call)                                                                             \
    do {                                                                                        \
        sigset_t before_, after_;                                                               \
        mask_now(&before_);                                                                     \
        errno = 12345;                                                                          \
        int ok_ = (intptr_t)(call) != -1;                                                       \
        int error_ = errno;                                                                     \
        mask_now(&after_);                                                                      \
        CHECK(ok_);                                                                             \
        SAME(error_, 12345);                                                                    \
        CHECK(memcmp(&before_, &after_, 8) == 0);                                               \
    } while (0)

static void all_calls_keep(void)
{
    struct shmid_ds ds;
    int id = -1;
    void *p = NULL;
    KEEPS(id = shmget(KEY, PAGE, IPC_CREAT | 0600));
    KEEPS(shmget(KEY, PAGE, 0));
    KEEPS(p = shmat(id, NULL, 0));
    KEEPS(shmat(id, NULL, SHM_RDONLY));
    KEEPS(shmctl(id, IPC_STAT, &ds));
    KEEPS(shmctl(id, IPC_SET, &ds));
    KEEPS(shmctl(id, SHM_LOCK, NULL));
    KEEPS(shmctl(id, SHM_UNLOCK, NULL));
    KEEPS(shmctl(0, IPC_INFO, &ds));
    struct shm_info info;
    int highest = -1;
    KEEPS(highest = shmctl(0, SHM_INFO, (struct shmid_ds *)&info));
    KEEPS(shmctl(highest, SHM_STAT_ANY, &ds));
    pid_t child = -1;
    KEEPS(child = fork());
    if (child == 0) {
        // The first calls of a child are where a library catches up.
        KEEPS(shmctl(id, IPC_STAT, &ds));
        KEEPS(shmdt(p));
        _exit(0);
    }
    wait_ok(child);
    KEEPS(shmdt(p));
    KEEPS(shmctl(id, IPC_RMID, NULL));
}

static void *all_calls_keep_in_thread(void *unused)
{
    (void)unused;
    all_calls_keep();
    return NULL;
}

static void errno_and_mask_are_kept(char **args)
{
    (void)args;
    all_calls_keep();
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGRTMIN + 3);
    CHECK(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0);
    all_calls_keep();
    in_threads(1, all_calls_keep_in_thread, 0);
    sigfillset(&mask);
    CHECK(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0);
    all_calls_keep();
}

SCENARIOS({"attach_and_detach_at_once", attach_and_detach_at_once},
          {"one_thread_wins_each_key", one_thread_wins_each_key},
          {"fork_among_threads", fork_among_threads}, {"handlers_call_too", handlers_call_too},
          {"handlers_call_among_threads_and_forks", handlers_call_among_threads_and_forks},
          {"cancelled_threads_leave_nothing", cancelled_threads_leave_nothing},
          {"errno_and_mask_are_kept", errno_and_mask_are_kept})
