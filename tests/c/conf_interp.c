// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Executes System V calls that it is told, and answers what came of each. It knows nothing of
// Vshmem and is not built for it: the harness (tests/src/conform) runs the same binary on the
// kernel and routed, and compares.
//
// Descriptor 0 is a SOCK_SEQPACKET socket. One packet is one command, a word and numbers; the
// answer is one packet: the result, the name of errno or "-", then what the call wrote as
// name=value. "!errno" follows when a call that succeeded changed errno, "!mask" when the signal
// mask is not what it was. Who begins, also by fork and exec, says "up" unasked. A fork answers
// with the pid of the child and hands over, as SCM_RIGHTS, the socket on which the child takes its
// own commands.

#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGS 48
#define UNTOUCHED 12345 /* no errno of the kernel */
#define PAGE 4096L

// Kinds of buffer that a shmctl is given.
enum { GOOD, NULL_POINTER, MINUS_ONE, UNMAPPED, READ_ONLY, HALF };

static char answer[2048];
static size_t answered;
static sigset_t mask_at_start;
static sigjmp_buf after_fault;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
	va_list list;
	va_start(list, format);
	int n = vsnprintf(answer + answered, sizeof answer - answered, format, list);
	va_end(list);
	if (n > 0)
		answered += (size_t)n;
	if (answered >= sizeof answer)
		answered = sizeof answer - 1;
}

static void die(const char *what) {
	perror(what);
	_exit(70);
}

// The result of a call: to be said before anything else is done.
static void result(long value) {
	int error = errno;
	sigset_t mask = {0};
	if (value == -1) {
		const char *name = strerrorname_np(error);
		say("-1 %s", name ? name : "unknown");
	} else {
		say("%ld -", value);
		if (error != UNTOUCHED)
			say(" !errno=%d", error);
	}
	sigprocmask(SIG_BLOCK, NULL, &mask);
	if (memcmp(&mask, &mask_at_start, sizeof mask) != 0)
		say(" !mask");
	errno = UNTOUCHED;
}

static void on_fault(int signal) {
	siglongjmp(after_fault, signal);
}

// Three pages: one to write, one to read only, one that is not there.
static char *probe_pages(void) {
	static char *pages;
	if (!pages) {
		pages = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (pages == MAP_FAILED || mprotect(pages + PAGE, PAGE, PROT_READ) ||
		    mprotect(pages + 2 * PAGE, PAGE, PROT_NONE))
			die("probe pages");
		errno = UNTOUCHED;
	}
	return pages;
}

static void *buffer(int kind) {
	char *pages = probe_pages();
	switch (kind) {
	case NULL_POINTER:
		return NULL;
	case MINUS_ONE:
		return (void *)-1L;
	case UNMAPPED:
		return pages + 2 * PAGE;
	case READ_ONLY:
		return pages + PAGE;
	case HALF: // begins well, ends where nothing may be written or read
		return pages + 2 * PAGE - 16;
	default:
		return pages;
	}
}

static int control(int raw, int id, int command, void *argument) {
	return raw ? (int)syscall(SYS_shmctl, id, command, argument) : shmctl(id, command, argument);
}

static void say_segment(const struct shmid_ds *s) {
	say(" key=%d uid=%u gid=%u cuid=%u cgid=%u mode=%o size=%zu atime=%ld dtime=%ld ctime=%ld "
	    "cpid=%d lpid=%d nattch=%lu",
	    s->shm_perm.__key, s->shm_perm.uid, s->shm_perm.gid, s->shm_perm.cuid, s->shm_perm.cgid,
	    (unsigned)s->shm_perm.mode, s->shm_segsz, s->shm_atime, s->shm_dtime, s->shm_ctime, s->shm_cpid,
	    s->shm_lpid, s->shm_nattch);
}

static void get(int raw, const uint64_t *a) {
	key_t key = (key_t)a[0];
	result(raw ? (int)syscall(SYS_shmget, key, (size_t)a[1], (int)a[2])
		   : shmget(key, a[1], (int)a[2]));
}

static void attach(int raw, const uint64_t *a) {
	void *at = (void *)a[1];
	long got = raw ? syscall(SYS_shmat, (int)a[0], at, (int)a[2]) : (long)shmat((int)a[0], at, (int)a[2]);
	result(got);
}

static void detach(int raw, const uint64_t *a) {
	result(raw ? (int)syscall(SYS_shmdt, (void *)a[0]) : shmdt((void *)a[0]));
}

static void stat_by_id(int raw, const uint64_t *a) {
	struct shmid_ds *s = buffer((int)a[1]);
	memset(buffer(GOOD), 0x5a, sizeof *s);
	int got = control(raw, (int)a[0], IPC_STAT, s);
	result(got);
	if (got != -1)
		say_segment(s);
}

// The listing: the entry of an id among all indexes, by SHM_STAT or SHM_STAT_ANY.
static void stat_by_index(int raw, const uint64_t *a) {
	struct shm_info info;
	struct shmid_ds s;
	int last = control(raw, 0, SHM_INFO, (void *)&info);
	for (int index = 0; index <= last; index++) {
		int id = control(raw, index, a[1] ? SHM_STAT_ANY : SHM_STAT, &s);
		if (id == -1 || id != (int)a[0])
			continue;
		errno = UNTOUCHED;
		result(0);
		say_segment(&s);
		return;
	}
	say("-1 unlisted");
}

static void set(int raw, const uint64_t *a) {
	struct shmid_ds *s = buffer((int)a[4]);
	if (a[4] == GOOD) {
		memset(s, 0, sizeof *s);
		s->shm_perm.uid = (uid_t)a[1];
		s->shm_perm.gid = (gid_t)a[2];
		s->shm_perm.mode = (unsigned short)a[3];
	}
	result(control(raw, (int)a[0], IPC_SET, s));
}

static void any_control(int raw, const uint64_t *a) {
	result(control(raw, (int)a[0], (int)a[1], buffer((int)a[2])));
}

static void limits(int raw, const uint64_t *a) {
	struct shminfo *i = buffer((int)a[0]);
	int got = control(raw, 0, IPC_INFO, (void *)i);
	result(got < 0 ? got : 0); // the highest index differs
	if (got != -1)
		say(" shmmax=%lu shmmin=%lu shmmni=%lu shmseg=%lu shmall=%lu", i->shmmax, i->shmmin, i->shmmni,
		    i->shmseg, i->shmall);
}

static void totals(int raw, const uint64_t *a) {
	struct shm_info *i = buffer((int)a[0]);
	int got = control(raw, 0, SHM_INFO, (void *)i);
	result(got < 0 ? got : 0);
	if (got != -1)
		say(" used=%d pages=%lu resident=%lu swapped=%lu", i->used_ids, i->shm_tot, i->shm_rss,
		    i->shm_swp);
}

union semun {
	int val;
	void *buffer;
};

static int set_control(int raw, int id, int sem, int command, union semun argument) {
	return raw ? (int)syscall(SYS_semctl, id, sem, command, argument) : semctl(id, sem, command, argument);
}

static void set_get(int raw, const uint64_t *a) {
	key_t key = (key_t)a[0];
	result(raw ? (int)syscall(SYS_semget, key, (int)a[1], (int)a[2])
		   : semget(key, (int)a[1], (int)a[2]));
}

// a[1]: 0 semop, 1 no timeout, 2 the one in a[2] and a[3], 3 one that is nowhere; a[4] operations follow.
static void set_operate(int raw, const uint64_t *a) {
	struct sembuf ops[(ARGS - 5) / 3];
	struct timespec time = {(time_t)a[2], (long)a[3]}, *timeout = NULL;
	size_t count = a[4];
	for (size_t i = 0; i < count && i < sizeof ops / sizeof *ops; i++)
		ops[i] = (struct sembuf){(unsigned short)a[5 + 3 * i], (short)a[6 + 3 * i], (short)a[7 + 3 * i]};
	if (a[1] == 2)
		timeout = &time;
	else if (a[1] == 3)
		timeout = buffer(UNMAPPED);
	errno = UNTOUCHED;
	if (a[1] == 0)
		result(raw ? (int)syscall(SYS_semop, (int)a[0], ops, count) : semop((int)a[0], ops, count));
	else
		result(raw ? (int)syscall(SYS_semtimedop, (int)a[0], ops, count, timeout)
			   : semtimedop((int)a[0], ops, count, timeout));
}

// Operations on a semaphore that no set has; where they can only be read they are zeros.
static void set_operate_badly(int raw, const uint64_t *a) {
	struct sembuf *all = buffer(GOOD), *ops = buffer((int)a[1]);
	for (size_t i = 0; i < PAGE / sizeof *all; i++)
		all[i] = (struct sembuf){65535, -1, IPC_NOWAIT};
	errno = UNTOUCHED;
	result(raw ? (int)syscall(SYS_semop, (int)a[0], ops, (size_t)a[2]) : semop((int)a[0], ops, a[2]));
}

static void set_number(int raw, const uint64_t *a) {
	result(set_control(raw, (int)a[0], (int)a[1], (int)a[2], (union semun){.val = (int)a[3]}));
}

static void set_get_all(int raw, const uint64_t *a) {
	unsigned short *all = buffer(GOOD);
	memset(all, 0x5a, PAGE);
	int got = set_control(raw, (int)a[0], 0, GETALL, (union semun){.buffer = buffer((int)a[1])});
	result(got);
	if (got != -1)
		say(" values=%d,%d,%d,%d", all[0], all[1], all[2], all[3]);
}

static void set_set_all(int raw, const uint64_t *a) {
	unsigned short *all = buffer(GOOD);
	for (size_t i = 0; i < PAGE / sizeof *all; i++)
		all[i] = (unsigned short)(a[1] + i % 3);
	errno = UNTOUCHED;
	result(set_control(raw, (int)a[0], 0, SETALL, (union semun){.buffer = buffer((int)a[2])}));
}

static void say_set(const struct semid_ds *s) {
	say(" key=%d uid=%u gid=%u cuid=%u cgid=%u mode=%o sems=%lu otime=%ld ctime=%ld", s->sem_perm.__key,
	    s->sem_perm.uid, s->sem_perm.gid, s->sem_perm.cuid, s->sem_perm.cgid, (unsigned)s->sem_perm.mode,
	    s->sem_nsems, s->sem_otime, s->sem_ctime);
}

static void set_stat(int raw, const uint64_t *a) {
	struct semid_ds *s = buffer((int)a[1]);
	memset(buffer(GOOD), 0x5a, sizeof *s);
	int got = set_control(raw, (int)a[0], 0, IPC_STAT, (union semun){.buffer = s});
	result(got);
	if (got != -1)
		say_set(s);
}

static void set_list(int raw, const uint64_t *a) {
	struct seminfo info;
	struct semid_ds s;
	int last = set_control(raw, 0, 0, SEM_INFO, (union semun){.buffer = &info});
	for (int index = 0; index <= last; index++) {
		int id = set_control(raw, index, 0, a[1] ? SEM_STAT_ANY : SEM_STAT, (union semun){.buffer = &s});
		if (id == -1 || id != (int)a[0])
			continue;
		errno = UNTOUCHED;
		result(0);
		say_set(&s);
		return;
	}
	say("-1 unlisted");
}

static void set_set(int raw, const uint64_t *a) {
	struct semid_ds *s = buffer((int)a[4]);
	if (a[4] == GOOD) {
		memset(s, 0, sizeof *s);
		s->sem_perm.uid = (uid_t)a[1];
		s->sem_perm.gid = (gid_t)a[2];
		s->sem_perm.mode = (unsigned short)a[3];
	}
	result(set_control(raw, (int)a[0], 0, IPC_SET, (union semun){.buffer = s}));
}

static void set_any_control(int raw, const uint64_t *a) {
	result(set_control(raw, (int)a[0], 0, (int)a[1], (union semun){.buffer = buffer((int)a[2])}));
}

static void set_limits(int raw, const uint64_t *a) {
	struct seminfo *i = buffer((int)a[0]);
	int got = set_control(raw, 0, 0, IPC_INFO, (union semun){.buffer = i});
	result(got < 0 ? got : 0); // the highest index differs
	if (got != -1)
		say(" map=%d mni=%d mns=%d mnu=%d msl=%d opm=%d ume=%d usz=%d vmx=%d aem=%d", i->semmap, i->semmni,
		    i->semmns, i->semmnu, i->semmsl, i->semopm, i->semume, i->semusz, i->semvmx, i->semaem);
}

static void set_totals(int raw, const uint64_t *a) {
	struct seminfo *i = buffer((int)a[0]);
	int got = set_control(raw, 0, 0, SEM_INFO, (union semun){.buffer = i});
	result(got < 0 ? got : 0);
	if (got != -1)
		say(" used=%d sems=%d", i->semusz, i->semaem);
}

// All that there is to see of a set.
static void set_dump(int raw, const uint64_t *a) {
	struct semid_ds s;
	const union semun none = {.val = 0};
	int id = (int)a[0], got = set_control(raw, id, 0, IPC_STAT, (union semun){.buffer = &s});
	result(got);
	for (int sem = 0; got != -1 && sem < (int)s.sem_nsems && sem < 3; sem++)
		say(" value=%d pid=%d ncnt=%d zcnt=%d", set_control(raw, id, sem, GETVAL, none),
		    set_control(raw, id, sem, GETPID, none), set_control(raw, id, sem, GETNCNT, none),
		    set_control(raw, id, sem, GETZCNT, none));
	if (got != -1)
		say(" otime=%ld ctime=%ld", s.sem_otime, s.sem_ctime);
}

static void peek(int raw, const uint64_t *a) {
	(void)raw;
	if (sigsetjmp(after_fault, 1) == 0) {
		unsigned char byte = *(volatile unsigned char *)a[0];
		result(byte);
	} else {
		say("-1 SEGV");
	}
}

static void poke(int raw, const uint64_t *a) {
	(void)raw;
	if (sigsetjmp(after_fault, 1) == 0) {
		*(volatile unsigned char *)a[0] = (unsigned char)a[1];
		result(0);
	} else {
		say("-1 SEGV");
	}
}

static void unmap(int raw, const uint64_t *a) {
	(void)raw;
	result(munmap((void *)a[0], a[1]));
}

static void protect(int raw, const uint64_t *a) {
	(void)raw;
	result(mprotect((void *)a[0], a[1], (int)a[2]));
}

// Effective user and group, and one supplementary group or, for -1, none; with a[3] for good.
static void become(int raw, const uint64_t *a) {
	(void)raw;
	uid_t uid = (uid_t)a[0];
	gid_t gid = (gid_t)a[1], group = (gid_t)a[2];
	if (seteuid(0) || setgroups(group == (gid_t)-1 ? 0 : 1, &group)) {
		result(-1);
		return;
	}
	errno = UNTOUCHED;
	if (a[3])
		result(setresgid(gid, gid, gid) || setresuid(uid, uid, uid) ? -1 : 0);
	else
		result(setegid(gid) || seteuid(uid) ? -1 : 0);
}

static void close_all(int raw, const uint64_t *a) {
	(void)raw;
	(void)a;
	closefrom(3);
	result(0);
}

static void send_answer(int fd) {
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header;
	} control = {0};
	struct iovec part = {.iov_base = answer, .iov_len = answered};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	if (fd >= 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof control.bytes;
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
	}
	if (sendmsg(0, &message, MSG_NOSIGNAL) < 0)
		die("answer");
	answered = 0;
}

// A process that exec'ed with effective ids other than its real ones would be a privileged one, for
// which the loader ignores LD_PRELOAD: what is tested here is the other kind.
static void real_ids(void) {
	gid_t gid = getgid();
	uid_t uid = getuid();
	syscall(SYS_setresuid, -1, uid, -1); // which gives root the right to the rest
	if (syscall(SYS_setresgid, gid, gid, gid) || syscall(SYS_setresuid, uid, uid, uid))
		die("real ids");
}

static char *const self[] = {(char *)"conf_interp", NULL};

// a[0]: 0 fork, 1 vfork and exec, 2 posix_spawn.
static void new_process(int raw, const uint64_t *a) {
	(void)raw;
	int pair[2];
	pid_t child;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	// posix_spawn is to find the rights to set the ids; and without root's, descriptors on their
	// way from any process of the user, however unconcerned, may be too many for one more.
	uid_t uid = geteuid();
	if (a[0] == 2 && seteuid(getuid()))
		die("seteuid");
	errno = UNTOUCHED;
	if (a[0] == 0) {
		child = fork();
		if (child == 0) {
			if (dup2(pair[1], 0) < 0)
				_exit(72);
			close(pair[0]);
			close(pair[1]);
			say("up");
			return;
		}
	} else if (a[0] == 1) {
		child = vfork();
		if (child == 0) {
			dup2(pair[1], 0);
			real_ids();
			execv("/proc/self/exe", self);
			_exit(73);
		}
	} else {
		posix_spawn_file_actions_t actions;
		posix_spawnattr_t attributes;
		posix_spawn_file_actions_init(&actions);
		posix_spawn_file_actions_adddup2(&actions, pair[1], 0);
		posix_spawnattr_init(&attributes);
		posix_spawnattr_setflags(&attributes, POSIX_SPAWN_RESETIDS);
		int error = posix_spawn(&child, "/proc/self/exe", &actions, &attributes, self, environ);
		posix_spawn_file_actions_destroy(&actions);
		posix_spawnattr_destroy(&attributes);
		errno = error ? error : UNTOUCHED;
		if (error)
			child = -1;
	}
	result(child);
	if (seteuid(getuid()))
		die("seteuid");
	send_answer(child < 0 ? -1 : pair[0]);
	if (seteuid(uid))
		die("seteuid");
	close(pair[0]);
	close(pair[1]);
}

static void replace(int raw, const uint64_t *a) {
	(void)raw;
	(void)a;
	real_ids();
	execv("/proc/self/exe", self);
	die("execv");
}

static void leave(int raw, const uint64_t *a) {
	(void)raw;
	switch (a[0]) {
	case 0:
		exit(0);
	case 1:
		_exit(0);
	default:
		setrlimit(RLIMIT_CORE, &(struct rlimit){0});
		abort();
	}
}

static const struct {
	const char *name;
	void (*run)(int raw, const uint64_t *arguments);
} commands[] = {
	{"get", get},           {"attach", attach},   {"detach", detach},     {"stat", stat_by_id},
	{"list", stat_by_index}, {"set", set},        {"control", any_control}, {"limits", limits},
	{"totals", totals},     {"peek", peek},       {"poke", poke},         {"unmap", unmap},
	{"protect", protect},   {"become", become},   {"close", close_all},   {"new", new_process},
	{"exec", replace},      {"leave", leave},
	{"semget", set_get},    {"semop", set_operate}, {"badop", set_operate_badly}, {"semnum", set_number},
	{"getall", set_get_all}, {"setall", set_set_all}, {"semstat", set_stat}, {"semlist", set_list},
	{"semset", set_set},    {"semcontrol", set_any_control}, {"semlimits", set_limits},
	{"semtotals", set_totals}, {"dump", set_dump},
};

static void on_signal(int signal) {
	(void)signal;
}

static void execute(char *line) {
	char *rest, *word = strtok_r(line, " ", &rest);
	uint64_t arguments[ARGS] = {0};
	int raw = word && *word == '*'; // by syscall(2), not through the function of libc
	if (raw)
		word++;
	for (int i = 0; i < ARGS; i++) {
		char *number = strtok_r(NULL, " ", &rest);
		if (!number)
			break;
		// Negative numbers are their two's complement.
		arguments[i] = strtoull(number, NULL, 0);
	}
	for (size_t i = 0; word && i < sizeof commands / sizeof *commands; i++) {
		if (strcmp(word, commands[i].name) == 0) {
			errno = UNTOUCHED;
			commands[i].run(raw, arguments);
			return;
		}
	}
	say("unknown command");
}

int main(void) {
	struct sigaction fault = {.sa_handler = on_fault}, interrupt = {.sa_handler = on_signal};
	char line[1024];
	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	sigaction(SIGUSR1, &interrupt, NULL);
	interrupt.sa_flags = SA_RESTART;
	sigaction(SIGUSR2, &interrupt, NULL);
	signal(SIGWINCH, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); // nobody waits for the children: no zombies
	sigprocmask(SIG_BLOCK, NULL, &mask_at_start);
	probe_pages();
	say("up");
	send_answer(-1);
	for (;;) {
		ssize_t n = recv(0, line, sizeof line - 1, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return 0;
		line[n] = '\0';
		answered = 0;
		execute(line);
		// A fork has answered already, in the parent.
		if (answered)
			send_answer(-1);
	}
}
