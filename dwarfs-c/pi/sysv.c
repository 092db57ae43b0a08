// SPDX-License-Identifier: MIT OR Apache-2.0
/* Pi (pi.h) by a team of processes in System V shared memory. */
#include "pi.h"

struct work {
	struct team team;
	uint64_t intervals; /* rank 0's, and then everybody's */
	double pi;
};

static uint64_t calculate(void *with, uint64_t iters)
{
	struct work *work = with;
	struct team *team = &work->team;

	for (uint64_t i = 0; i < iters; i++) {
		team_broadcast(team, &work->intervals, sizeof work->intervals);
		work->pi = part_of_pi(work->intervals, team->rank, team->size);
		team_sum(team, &work->pi, 1);
	}
	return iters;
}

int main(int argc, char **argv)
{
	struct arguments arguments = arguments_of(argc, argv, &pi, SYSV);
	struct work work = {.team = team_start(&arguments.team, 0)};

	if (work.team.rank == 0)
		work.intervals = arguments.size;
	measure(&arguments.measure, calculate, &work);
	team_end(&work.team);
	if (work.team.rank != 0)
		return 0;
	print_pi(work.pi);
	print_times(&arguments, work.team.size, work.team.setup_ns);
	return 0;
}
