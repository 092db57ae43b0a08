// SPDX-License-Identifier: MIT OR Apache-2.0
/* Ends a program that waits in the kernel, where no call has a limit of time that costs nothing,
 * for a peer that does not move any more. */
#ifndef DWARFS_WATCH_H
#define DWARFS_WATCH_H

#include "../dwarfs.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

/* To be changed at each turn. */
static volatile uint64_t moves;

static void look_whether_it_moves(int signal)
{
	static const char said[] = "the peer has not moved for a while: is it still there?\n";
	static uint64_t seen = UINT64_MAX;

	(void)signal;
	if (moves == seen) {
		ssize_t ignored = write(STDERR_FILENO, said, sizeof said - 1);

		(void)ignored;
		_exit(1);
	}
	seen = moves;
}

/* From now on the program ends between one and two times PATIENCE_S after the last move. */
static void watch(void)
{
	const struct sigaction action = {
		.sa_handler = look_whether_it_moves,
		.sa_flags = SA_RESTART,
	};
	const struct itimerval every = {
		.it_interval.tv_sec = PATIENCE_S,
		.it_value.tv_sec = PATIENCE_S,
	};

	if (sigaction(SIGALRM, &action, NULL) < 0 || setitimer(ITIMER_REAL, &every, NULL) < 0)
		fail("setitimer: %s", strerror(errno));
}

#endif
