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

#include "conf.h"
#include "conf_queues.h"
#include "conf_sets.h"
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/wait.h>

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
	{"semtotals", set_totals}, {"semdump", set_dump},
	{"msgget", queue_get},  {"msgsnd", queue_send}, {"msgrcv", queue_receive}, {"msgstat", queue_stat},
	{"msglist", queue_list}, {"msgset", queue_set}, {"msgcontrol", queue_any_control},
	{"msglimits", queue_limits}, {"msgtotals", queue_totals}, {"msgdump", queue_dump},
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
