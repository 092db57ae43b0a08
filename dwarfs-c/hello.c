// SPDX-License-Identifier: MIT OR Apache-2.0
/* Two programs in one memory: one makes a segment by its key and leaves a greeting in it, the
 * other finds the segment by the same key, reads the greeting and leaves an answer.
 *
 * Plain System V. Run as it is, both meet in the kernel's segment; run in two domains of Vshmem,
 * in one that the kernel does not have. */
#include "dwarfs.h"

#include <getopt.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

struct board {
	atomic_uint greeted;
	atomic_uint answered;
	char greeting[120];
	char answer[120];
};

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

__attribute__((noreturn)) static void usage(void)
{
	fprintf(stderr, "usage: hello write --key KEY   make the segment, greet, wait for the answer\n"
			"       hello read --key KEY    find the segment, print the greeting, answer\n");
	exit(2);
}

static struct board *attach(int id)
{
	struct board *board = shmat(id, NULL, 0);

	if (board == (void *)-1)
		fail("shmat: %s", strerror(errno));
	return board;
}

/* Waits for the answer asleep, since a person may be typing the other command. Returns 0, or 1
 * when a signal came first. */
static int await_answer(struct board *board)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	while (!stopped && !atomic_load_explicit(&board->answered, memory_order_acquire))
		nanosleep(&moment, NULL);
	if (stopped)
		return 1;
	printf("was answered \"%.*s\"\n", (int)sizeof board->answer, board->answer);
	return 0;
}

static int write_side(key_t key)
{
	const struct sigaction on_stop = {.sa_handler = stop};
	struct board *board;
	int id, status;

	sigaction(SIGINT, &on_stop, NULL);
	sigaction(SIGTERM, &on_stop, NULL);
	id = shmget(key, sizeof *board, IPC_CREAT | IPC_EXCL | 0600);
	if (id < 0)
		fail("shmget(0x%x, IPC_CREAT | IPC_EXCL): %s%s", (unsigned)key, strerror(errno),
		     errno == EEXIST ? HINT_EXISTS("M") : "");
	board = attach(id);
	snprintf(board->greeting, sizeof board->greeting, "greetings from pid %d", (int)getpid());
	atomic_store_explicit(&board->greeted, 1, memory_order_release);
	printf("pid %d made segment %d and wrote \"%s\"\n", (int)getpid(), id, board->greeting);
	status = await_answer(board);
	if (shmctl(id, IPC_RMID, NULL) < 0)
		fail("shmctl(IPC_RMID): %s", strerror(errno));
	return status;
}

static int read_side(key_t key)
{
	struct board *board;
	int id = shmget(key, sizeof *board, 0);

	if (id < 0)
		fail("shmget(0x%x): %s", (unsigned)key, strerror(errno));
	board = attach(id);
	spin_until_set(&board->greeted);
	printf("pid %d found segment %d and saw \"%.*s\"\n", (int)getpid(), id,
	       (int)sizeof board->greeting, board->greeting);
	snprintf(board->answer, sizeof board->answer, "thanks, pid %d", (int)getpid());
	printf("pid %d wrote \"%s\"\n", (int)getpid(), board->answer);
	atomic_store_explicit(&board->answered, 1, memory_order_release);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"key", required_argument, NULL, 'k'}, {0}};
	key_t key = IPC_PRIVATE;
	int option;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option != 'k')
			usage();
		key = (key_t)number(optarg, 1, UINT32_MAX, usage);
	}
	if (key == IPC_PRIVATE || argc - optind != 1)
		usage();
	if (strcmp(argv[optind], "write") == 0)
		return write_side(key);
	if (strcmp(argv[optind], "read") == 0)
		return read_side(key);
	usage();
}
