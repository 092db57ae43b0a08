// SPDX-License-Identifier: MIT OR Apache-2.0
// Signal handlers behave as without Vshmem, which stands between them and the kernel: what they are
// given, what is said of them, and what they may do.
#include "check.h"
#include <setjmp.h>
#include <sys/time.h>
#include <ucontext.h>

static volatile sig_atomic_t count, caught;
static volatile siginfo_t seen;
static void *volatile seen_at;

static void counts(int signal)
{
    count++;
    caught = signal;
}

static void counts_too(int signal)
{
    count += 100;
    caught = signal;
}

static void notes(int signal, siginfo_t *info, void *context)
{
    ucontext_t *was = context;
    counts(signal);
    seen = *info;
    CHECK(was->uc_mcontext.gregs[REG_RIP] != 0);
}

static struct sigaction action_of(void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    return action;
}

static struct sigaction install(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = action_of(handler, flags), old;
    CHECK(sigaction(signal, &action, &old) == 0);
    return old;
}

static struct sigaction installed(int signal)
{
    struct sigaction action;
    memset(&action, 0xa5, sizeof action);
    CHECK(sigaction(signal, NULL, &action) == 0);
    return action;
}

static void install_info(int signal, int flags)
{
    struct sigaction action = {.sa_sigaction = notes, .sa_flags = flags | SA_SIGINFO};
    CHECK(sigaction(signal, &action, NULL) == 0);
}

#define ONCE ((int)SA_RESETHAND)
#define FLAGS                                                                                   \
    (SA_RESTART | SA_NODEFER | SA_ONSTACK | SA_SIGINFO | SA_NOCLDSTOP | SA_NOCLDWAIT | ONCE)

// What sigaction says of a signal is what was given, or what became of it.
static void queries(char **args)
{
    static const int bits[] = {SA_RESTART, SA_NODEFER,   SA_ONSTACK,   SA_SIGINFO,
                               SA_NOCLDSTOP, SA_NOCLDWAIT, ONCE};
    (void)args;
    CHECK(installed(SIGUSR1).sa_handler == SIG_DFL);
    struct sigaction last = installed(SIGUSR1);
    for (unsigned set = 0; set < 1u << 7; set++) {
        int flags = 0;
        for (int n = 0; n < 7; n++)
            flags |= set & 1u << n ? bits[n] : 0;
        struct sigaction action = action_of(set % 2 ? counts : counts_too, flags), old;
        sigaddset(&action.sa_mask, SIGUSR2);
        if (set % 3 == 0)
            sigaddset(&action.sa_mask, SIGRTMIN + 3);
        CHECK(sigaction(SIGUSR1, &action, &old) == 0);
        CHECK(old.sa_handler == last.sa_handler);
        SAME(old.sa_flags & FLAGS, last.sa_flags & FLAGS);
        last = installed(SIGUSR1);
        CHECK(last.sa_handler == action.sa_handler);
        SAME(last.sa_flags & FLAGS, flags);
        for (int n = 1; n < 65; n++)
            SAME(sigismember(&last.sa_mask, n), sigismember(&action.sa_mask, n));
    }
    // One structure for both.
    struct sigaction both = action_of(counts, SA_RESTART), *volatile same = &both;
    CHECK(sigaction(SIGUSR1, &both, same) == 0);
    CHECK(both.sa_handler == last.sa_handler);
    CHECK(sigaction(SIGUSR1, &both, same) == 0);
    CHECK(both.sa_handler == counts);
    // No handler any more.
    CHECK(install(SIGUSR1, SIG_IGN, 0).sa_handler == last.sa_handler);
    CHECK(installed(SIGUSR1).sa_handler == SIG_IGN);
    CHECK(install(SIGUSR1, SIG_DFL, 0).sa_handler == SIG_IGN);
    CHECK(install(SIGUSR1, counts, 0).sa_handler == SIG_DFL);
    // Nothing is changed by what is refused.
    struct sigaction some = action_of(counts_too, 0);
    for (int n = 0; n < 5; n++) {
        static const int bad[] = {0, -1, 65, SIGKILL, SIGSTOP};
        FAILS(EINVAL, sigaction(bad[n], &some, NULL));
    }
    FAILS(EINVAL, sigaction(32, &some, NULL));
    FAILS(EINVAL, sigaction(0, NULL, &some));
    CHECK(installed(SIGKILL).sa_handler == SIG_DFL);
}

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static void old_functions(char **args)
{
    (void)args;
    CHECK(signal(SIGUSR1, counts) == SIG_DFL);
    SAME(installed(SIGUSR1).sa_flags & FLAGS, SA_RESTART);
    struct sigaction now = installed(SIGUSR1);
    SAME(sigismember(&now.sa_mask, SIGUSR1), 1);
    SAME(sigismember(&now.sa_mask, SIGUSR2), 0);
    CHECK(signal(SIGUSR1, counts_too) == counts);
    CHECK(signal(SIGUSR1, SIG_IGN) == counts_too);
    CHECK(signal(SIGUSR1, counts) == SIG_IGN);
    CHECK(signal(SIGUSR1, SIG_DFL) == counts);
    CHECK(ssignal(SIGUSR1, counts) == SIG_DFL);
    SAME(installed(SIGUSR1).sa_flags & FLAGS, SA_RESTART);
    raise(SIGUSR1);
    raise(SIGUSR1);
    SAME(count, 2);
    CHECK(sysv_signal(SIGUSR1, counts_too) == counts);
    SAME(installed(SIGUSR1).sa_flags & FLAGS, ONCE | SA_NODEFER);
    raise(SIGUSR1);
    SAME(count, 102);
    CHECK(sysv_signal(SIGUSR1, counts_too) == SIG_DFL);
    CHECK(sysv_signal(SIGUSR1, SIG_IGN) == counts_too);
    // Those of a set.
    CHECK(sigset(SIGUSR1, counts) == SIG_IGN);
    SAME(installed(SIGUSR1).sa_flags & FLAGS, 0);
    CHECK(sigset(SIGUSR1, SIG_HOLD) == counts);
    raise(SIGUSR1);
    SAME(count, 102);
    CHECK(sigset(SIGUSR1, counts_too) == SIG_HOLD);
    SAME(count, 202);
    CHECK(sigset(SIGUSR1, counts) == counts_too);
    CHECK(sigset(SIGUSR1, SIG_IGN) == counts);
    CHECK(sigset(SIGUSR1, counts) == SIG_IGN);
    CHECK(sigignore(SIGUSR1) == 0);
    CHECK(installed(SIGUSR1).sa_handler == SIG_IGN);
    // What signal() does after this is changed, and what it has done.
    CHECK(signal(SIGUSR1, counts) == SIG_IGN);
    CHECK(siginterrupt(SIGUSR1, 1) == 0);
    SAME(installed(SIGUSR1).sa_flags & FLAGS, 0);
    CHECK(installed(SIGUSR1).sa_handler == counts);
    CHECK(signal(SIGUSR1, counts) == counts);
    SAME(installed(SIGUSR1).sa_flags & FLAGS, 0);
    CHECK(siginterrupt(SIGUSR1, 0) == 0);
    SAME(installed(SIGUSR1).sa_flags & FLAGS, SA_RESTART);
    raise(SIGUSR1);
    SAME(count, 203);
    for (int n = 0; n < 6; n++) {
        static const int bad[] = {0, -1, 65, 32, SIGKILL, SIGSTOP};
        errno = 0;
        CHECK(signal(bad[n], counts) == SIG_ERR);
        SAME(errno, EINVAL);
        errno = 0;
        CHECK(sysv_signal(bad[n], counts) == SIG_ERR);
        SAME(errno, EINVAL);
        errno = 0;
        CHECK(sigset(bad[n], counts) == SIG_ERR);
        SAME(errno, EINVAL);
    }
    errno = 0;
    CHECK(signal(SIGUSR1, SIG_ERR) == SIG_ERR);
    SAME(errno, EINVAL);
    CHECK(installed(SIGUSR1).sa_handler == counts);
}

static void siginfo(char **args)
{
    (void)args;
    install_info(SIGUSR1, 0);
    CHECK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 42}) == 0);
    SAME(seen.si_signo, SIGUSR1);
    SAME(seen.si_code, SI_QUEUE);
    SAME(seen.si_value.sival_int, 42);
    SAME(seen.si_pid, getpid());
    CHECK(kill(getpid(), SIGUSR1) == 0);
    SAME(seen.si_code, SI_USER);
    SAME(seen.si_uid, getuid());
    raise(SIGUSR1);
    SAME(seen.si_code, SI_TKILL);
    install_info(SIGCHLD, 0);
    pid_t child = fork();
    if (child == 0)
        _exit(7);
    while (waitpid(child, NULL, 0) < 0)
        SAME(errno, EINTR);
    SAME(seen.si_signo, SIGCHLD);
    SAME(seen.si_pid, child);
    SAME(seen.si_status, 7);
    SAME(seen.si_code, CLD_EXITED);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN,
                             .sigev_value.sival_int = 99};
    struct itimerspec soon = {.it_value.tv_nsec = 1};
    timer_t timer;
    install_info(SIGRTMIN, 0);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    count = 0;
    CHECK(timer_settime(timer, 0, &soon, NULL) == 0);
    while (count == 0)
        sched_yield();
    SAME(seen.si_code, SI_TIMER);
    SAME(seen.si_value.sival_int, 99);
    CHECK(timer_delete(timer) == 0);
}

static void resets_itself(int signal)
{
    count++;
    CHECK(installed(signal).sa_handler == SIG_DFL);
}

static void resethand(char **args)
{
    (void)args;
    struct sigaction action = action_of(resets_itself, ONCE | SA_RESTART);
    sigaddset(&action.sa_mask, SIGUSR2);
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(installed(SIGUSR1).sa_handler == resets_itself);
    pid_t child = fork();
    if (child == 0) {
        raise(SIGUSR1);
        SAME(count, 1);
        struct sigaction now = installed(SIGUSR1);
        SAME(now.sa_flags & FLAGS, ONCE | SA_RESTART);
        SAME(sigismember(&now.sa_mask, SIGUSR2), 1);
        // It may be installed again.
        CHECK(sigaction(SIGUSR1, &action, &now) == 0);
        CHECK(now.sa_handler == SIG_DFL);
        raise(SIGUSR1);
        SAME(count, 2);
        raise(SIGUSR1);
        _exit(1);
    }
    int status = 0;
    SAME(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
}

static volatile sig_atomic_t depth, deepest;

static void nests(int signal)
{
    if (++depth > deepest)
        deepest = depth;
    if (depth < 4 && ++count < 8)
        raise(signal);
    depth--;
}

static void masks_in_handlers(char **args)
{
    (void)args;
    install(SIGUSR1, nests, 0);
    raise(SIGUSR1);
    SAME(deepest, 1);
    deepest = count = 0;
    install(SIGUSR1, nests, SA_NODEFER);
    raise(SIGUSR1);
    SAME(deepest, 4);
    // Others only if they are not in the mask.
    struct sigaction action = action_of(nests, 0);
    sigfillset(&action.sa_mask);
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    deepest = count = 0;
    raise(SIGUSR1);
    SAME(deepest, 1);
    sigset_t mask;
    CHECK(sigprocmask(SIG_BLOCK, NULL, &mask) == 0);
    for (int n = 1; n < 65; n++)
        SAME(sigismember(&mask, n) == 1, 0);
}

static void where(int signal)
{
    counts(signal);
    seen_at = __builtin_frame_address(0);
}

static void onstack(char **args)
{
    static char small[16 * PAGE];
    (void)args;
    stack_t stack = {.ss_sp = small, .ss_size = sizeof small};
    CHECK(sigaltstack(&stack, NULL) == 0);
    install(SIGUSR1, where, SA_ONSTACK);
    raise(SIGUSR1);
    CHECK((char *)seen_at >= small && (char *)seen_at < small + sizeof small);
    install(SIGUSR1, where, 0);
    raise(SIGUSR1);
    CHECK((char *)seen_at < small || (char *)seen_at >= small + sizeof small);
    SAME(count, 2);
}

static sigjmp_buf away;

static void jumps(int signal)
{
    siglongjmp(away, signal);
}

static void jumping_out(char **args)
{
    (void)args;
    for (volatile int n = 0; n < 100; n++) {
        install(SIGUSR1, jumps, n % 2 ? SA_NODEFER : 0);
        int got = sigsetjmp(away, 1);
        if (got == 0) {
            raise(SIGUSR1);
            CHECK(!"it came back");
        }
        SAME(got, SIGUSR1);
    }
}

static char *page;

static void mends(int signal, siginfo_t *info, void *context)
{
    (void)context;
    counts(signal);
    CHECK(info->si_addr == page && info->si_code == SEGV_ACCERR);
    CHECK(mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0);
}

static void faults(char **args)
{
    (void)args;
    page = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    struct sigaction action = {.sa_sigaction = mends, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    *(volatile char *)page = 5;
    SAME(count, 1);
    SAME(*page, 5);
    CHECK(mprotect(page, PAGE, PROT_NONE) == 0);
    install(SIGSEGV, jumps, 0);
    if (sigsetjmp(away, 1) == 0)
        *(volatile char *)page = 6;
    SAME(count, 1);
}

static void after_fork_and_exec(char **args)
{
    if (args[0] != NULL) {
        // The new program: handlers are gone, what was ignored stays so.
        CHECK(installed(SIGUSR1).sa_handler == SIG_DFL);
        CHECK(installed(SIGUSR2).sa_handler == SIG_IGN);
        CHECK(signal(SIGUSR1, counts) == SIG_DFL);
        raise(SIGUSR1);
        SAME(count, 1);
        return;
    }
    install(SIGUSR1, counts, SA_RESTART);
    install(SIGUSR2, SIG_IGN, 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(installed(SIGUSR1).sa_handler == counts);
        raise(SIGUSR1);
        SAME(count, 1);
        CHECK(signal(SIGUSR1, counts_too) == counts);
        raise(SIGUSR1);
        SAME(count, 101);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            raise(SIGUSR1);
            SAME(count, 201);
            _exit(0);
        }
        wait_ok(grandchild);
        _exit(0);
    }
    wait_ok(child);
    raise(SIGUSR1);
    SAME(count, 1);
    child = fork();
    if (child == 0) {
        char *argv[] = {"signals_handlers", "after_fork_and_exec", "again", NULL};
        execv("/proc/self/exe", argv);
        _exit(1);
    }
    wait_ok(child);
}

// A child of vfork shares the memory, but not the handlers.
static void after_vfork(char **args)
{
    (void)args;
    install(SIGUSR1, counts, 0);
    pid_t child = vfork();
    if (child == 0) {
        struct sigaction action = action_of(counts_too, 0);
        if (sigaction(SIGUSR1, &action, NULL) != 0)
            _exit(1);
        if (signal(SIGUSR2, SIG_IGN) != SIG_DFL)
            _exit(2);
        _exit(installed(SIGUSR1).sa_handler == counts_too ? 0 : 3);
    }
    wait_ok(child);
    CHECK(installed(SIGUSR1).sa_handler == counts);
    CHECK(installed(SIGUSR2).sa_handler == SIG_DFL);
    raise(SIGUSR1);
    SAME(count, 1);
    // These set and restore handlers in the C library itself.
    install(SIGINT, counts, SA_RESTART);
    CHECK(system("exit 0") == 0);
    CHECK(installed(SIGINT).sa_handler == counts);
    SAME(installed(SIGINT).sa_flags & FLAGS, SA_RESTART);
    raise(SIGINT);
    SAME(count, 2);
}

static void aborting(char **args)
{
    (void)args;
    install(SIGABRT, jumps, 0);
    int got = sigsetjmp(away, 1);
    if (got == 0)
        abort();
    SAME(got, SIGABRT);
}

static pthread_t main_thread, handled_on;
static _Atomic int ready;

static void where_from(int signal)
{
    counts(signal);
    handled_on = pthread_self();
}

static void *waits(void *unused)
{
    (void)unused;
    ready = 1;
    while (count == 0)
        sched_yield();
    return NULL;
}

static void threads(char **args)
{
    (void)args;
    main_thread = pthread_self();
    install(SIGUSR1, where_from, 0);
    for (int n = 0; n < 20; n++) {
        pthread_t thread;
        count = 0;
        CHECK(pthread_create(&thread, NULL, waits, NULL) == 0);
        while (!ready)
            sched_yield();
        CHECK(pthread_kill(thread, SIGUSR1) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(pthread_equal(handled_on, thread));
        ready = 0;
    }
    pthread_kill(main_thread, SIGUSR1);
    CHECK(pthread_equal(handled_on, main_thread));
}

// Whether a system call goes on after a handler.
static void restarting(char **args)
{
    struct gate gate = gate_new();
    (void)args;
    for (int n = 0; n < 4; n++) {
        count = 0;
        if (n == 0)
            install(SIGALRM, counts, 0);
        else if (n == 1)
            install(SIGALRM, counts, SA_RESTART);
        else
            CHECK(signal(SIGALRM, counts) != SIG_ERR);
        if (n == 3)
            CHECK(siginterrupt(SIGALRM, 1) == 0);
        pid_t child = -1;
        int restarts = n == 1 || n == 2;
        struct itimerval soon = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
        if (restarts && (child = fork()) == 0) {
            // Writes when the handler must have run.
            struct timespec time = {0, 100000000};
            nanosleep(&time, NULL);
            gate_open(&gate);
            _exit(0);
        }
        CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        char byte;
        errno = 0;
        ssize_t got = read(gate.fd[0], &byte, 1);
        int error = errno;
        CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
        SAME(got, restarts ? 1 : -1);
        SAME(error, restarts ? 0 : EINTR);
        CHECK(count > 0);
        if (restarts)
            wait_ok(child);
    }
}

SCENARIOS({"queries", queries}, {"old_functions", old_functions}, {"siginfo", siginfo},
          {"resethand", resethand}, {"masks_in_handlers", masks_in_handlers}, {"onstack", onstack},
          {"jumping_out", jumping_out}, {"faults", faults},
          {"after_fork_and_exec", after_fork_and_exec}, {"after_vfork", after_vfork},
          {"aborting", aborting}, {"threads", threads}, {"restarting", restarting})
