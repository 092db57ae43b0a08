// SPDX-License-Identifier: MIT OR Apache-2.0
/* The program that vshmem-bench measures, natively and routed: one binary that knows nothing of
 * Vshmem.
 *
 *	worker hold KEY SIZE			makes a segment, says "ready", removes it when stdin ends
 *	worker hold-set KEY COUNT		the same with a set of so many semaphores
 *	worker hold-queue KEY COUNT		the same with a queue that has so many messages
 *	worker BATCHES OPS CASE [ARGS]		does CASE OPS times, BATCHES times over, and prints the
 *						nanoseconds one took in each batch, a line a batch
 */
#define _GNU_SOURCE
#include "../../../dwarfs-c/dwarfs.h"

#include <spawn.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

/* What a case works with; each uses what it needs. */
static key_t key;
static size_t size;
static int id;
static char **child_argv;
static char **child_env;

static void check(bool fine, const char *call)
{
	if (!fine)
		fail("%s: %s", call, strerror(errno));
}

static void touch(char *memory)
{
	for (size_t at = 0; at < size; at += PAGE)
		((volatile char *)memory)[at] = 1;
}

static void wait_for(pid_t child)
{
	int status;

	check(waitpid(child, &status, 0) == child, "waitpid");
	if (status != 0)
		fail("a child ended with status 0x%x", (unsigned)status);
}

/* A key that somebody made: KEY. */
static void existing(char **args)
{
	key = (key_t)strtoul(args[0], NULL, 0);
	check((id = shmget(key, 0, 0)) >= 0, "shmget");
}

static void do_shmget(void)
{
	check(shmget(key, 0, 0) == id, "shmget");
}

/* As most programs have it, which wants the permission checked. */
static void do_shmget_or_make(void)
{
	check(shmget(key, 1, IPC_CREAT | 0600) == id, "shmget");
}

/* A segment that somebody made: KEY SIZE. */
static void existing_of_size(char **args)
{
	existing(args);
	size = strtoul(args[1], NULL, 0);
}

static void do_attach(void)
{
	char *memory = shmat(id, NULL, 0);

	check(memory != (void *)-1, "shmat");
	touch(memory);
	check(shmdt(memory) == 0, "shmdt");
}

/* A segment that somebody made, attached as long as the program runs: KEY SIZE. */
static void existing_attached(char **args)
{
	char *memory;

	existing_of_size(args);
	memory = shmat(id, NULL, 0);
	check(memory != (void *)-1, "shmat");
	touch(memory);
}

/* A key of which there is no segment: KEY. */
static void absent(char **args)
{
	key = (key_t)strtoul(args[0], NULL, 0);
	size = PAGE;
}

static void do_cycle(void)
{
	check((id = shmget(key, size, IPC_CREAT | IPC_EXCL | 0600)) >= 0, "shmget");
	do_attach();
	check(shmctl(id, IPC_RMID, NULL) == 0, "shmctl(IPC_RMID)");
}

/* A segment that stays until the program ends: KEY. */
static void remove_segment(void)
{
	shmctl(id, IPC_RMID, NULL);
}

static void own_segment(char **args)
{
	key = (key_t)strtoul(args[0], NULL, 0);
	check((id = shmget(key, PAGE, IPC_CREAT | IPC_EXCL | 0600)) >= 0, "shmget");
	atexit(remove_segment);
}

static void do_shmctl(void)
{
	struct shmid_ds stat;

	check(shmctl(id, IPC_STAT, &stat) == 0, "shmctl(IPC_STAT)");
}

static void remove_set(void)
{
	semctl(id, 0, IPC_RMID);
}

static void own_set(char **args)
{
	(void)args;
	check((id = semget(IPC_PRIVATE, 1, 0600)) >= 0, "semget");
	atexit(remove_set);
}

/* Up and down by turns, so that it never waits. */
static void do_semop(void)
{
	static short step = -1;
	struct sembuf op = {.sem_op = step = (short)-step};

	check(semop(id, &op, 1) == 0, "semop");
}

/* A set that somebody made: KEY COUNT. */
static void existing_set(char **args)
{
	key = (key_t)strtoul(args[0], NULL, 0);
	check((id = semget(key, 0, 0)) >= 0, "semget");
}

/* As do_semop, of so many semaphores at once. */
static void step(size_t count, short flags)
{
	static short by = -1;
	struct sembuf ops[4];

	by = (short)-by;
	for (size_t i = 0; i < count; i++)
		ops[i] = (struct sembuf){.sem_num = (unsigned short)i, .sem_op = by, .sem_flg = flags};
	check(semop(id, ops, count) == 0, "semop");
}

static void do_one(void)
{
	step(1, 0);
}

static void do_undo(void)
{
	step(1, SEM_UNDO);
}

static void do_four(void)
{
	step(4, 0);
}

struct message {
	long type;
	char text[8];
};

/* A queue that somebody made: KEY COUNT. */
static void existing_queue(char **args)
{
	key = (key_t)strtoul(args[0], NULL, 0);
	check((id = msgget(key, 0)) >= 0, "msgget");
}

/* A message there and back, behind all others in the queue, whose types are others. */
static void do_message(void)
{
	struct message message = {.type = 1000000000};

	check(msgsnd(id, &message, sizeof message.text, 0) == 0, "msgsnd");
	check(msgrcv(id, &message, sizeof message.text, 1000000000, 0) == 8, "msgrcv");
}

static void nothing(char **args)
{
	(void)args;
}

static void do_syscall(void)
{
	check(syscall(SYS_getppid) >= 0, "syscall");
}

static void do_fork(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	check(child > 0, "fork");
	wait_for(child);
}

/* PROGRAM [NAME=VALUE...]: the program and the only variables it gets. */
static void program(char **args)
{
	static char *argv[2];

	argv[0] = args[0];
	child_argv = argv;
	child_env = args + 1;
}

static void do_spawn(void)
{
	pid_t child;

	errno = posix_spawn(&child, child_argv[0], NULL, NULL, child_argv, child_env);
	check(errno == 0, "posix_spawn");
	wait_for(child);
}

static const struct {
	const char *name;
	int args;
	void (*prepare)(char **args);
	void (*once)(void);
} cases[] = {
	{"shmget", 1, existing, do_shmget},
	{"shmget-or-make", 1, existing, do_shmget_or_make},
	{"attach", 2, existing_of_size, do_attach},
	{"cycle", 1, absent, do_cycle},
	{"shmctl", 1, own_segment, do_shmctl},
	{"semop", 0, own_set, do_semop},
	{"sem-one", 2, existing_set, do_one},
	{"sem-undo", 2, existing_set, do_undo},
	{"sem-four", 2, existing_set, do_four},
	{"message", 2, existing_queue, do_message},
	{"syscall", 0, nothing, do_syscall},
	{"fork", 0, nothing, do_fork},
	{"fork-attached", 2, existing_attached, do_fork},
	{"spawn", 1, program, do_spawn},
};

/* Says that it is ready, and returns when whoever has started it wants no more of it. */
static void wait_for_end(void)
{
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
}

static int hold(char **args)
{
	int held = shmget((key_t)strtoul(args[0], NULL, 0), strtoul(args[1], NULL, 0),
			  IPC_CREAT | IPC_EXCL | 0600);

	check(held >= 0, "shmget");
	wait_for_end();
	check(shmctl(held, IPC_RMID, NULL) == 0, "shmctl(IPC_RMID)");
	return 0;
}

static int hold_set(char **args)
{
	int held = semget((key_t)strtoul(args[0], NULL, 0), atoi(args[1]),
			  IPC_CREAT | IPC_EXCL | 0600);

	check(held >= 0, "semget");
	wait_for_end();
	check(semctl(held, 0, IPC_RMID) == 0, "semctl(IPC_RMID)");
	return 0;
}

static int hold_queue(char **args)
{
	int held = msgget((key_t)strtoul(args[0], NULL, 0), IPC_CREAT | IPC_EXCL | 0600);
	int count = atoi(args[1]);

	check(held >= 0, "msgget");
	/* Without text, so that as many fit as the queue may have bytes. */
	for (int i = 0; i < count; i++) {
		struct message message = {.type = i + 1};

		check(msgsnd(held, &message, 0, IPC_NOWAIT) == 0, "msgsnd");
	}
	wait_for_end();
	check(msgctl(held, IPC_RMID, NULL) == 0, "msgctl(IPC_RMID)");
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long batches, ops;

	if (argc == 4 && strcmp(argv[1], "hold") == 0)
		return hold(argv + 2);
	if (argc == 4 && strcmp(argv[1], "hold-set") == 0)
		return hold_set(argv + 2);
	if (argc == 4 && strcmp(argv[1], "hold-queue") == 0)
		return hold_queue(argv + 2);
	if (argc < 4)
		fail("wrong number of arguments");
	batches = strtoul(argv[1], NULL, 0);
	ops = strtoul(argv[2], NULL, 0);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		if (strcmp(argv[3], cases[i].name) != 0)
			continue;
		if (argc < 4 + cases[i].args)
			fail("%s wants %d arguments", argv[3], cases[i].args);
		cases[i].prepare(argv + 4);
		/* Everything that only the first call does is not what is measured. */
		for (int warm_up = 0; warm_up < 4; warm_up++)
			cases[i].once();
		for (unsigned long batch = 0; batch < batches; batch++) {
			int64_t start = now_ns();

			for (unsigned long op = 0; op < ops; op++)
				cases[i].once();
			printf("%.2f\n", (double)(now_ns() - start) / (double)ops);
		}
		return 0;
	}
	fail("no case %s", argv[3]);
}
