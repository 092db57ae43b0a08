// SPDX-License-Identifier: MIT OR Apache-2.0
/* Teams: see team.h. Plain System V: shmget, shmat, and semget and semop for those that sleep.
 *
 * Each worker has a cache line that it alone writes. All calls that bring workers together are
 * counted, which gives their generation. A worker puts what it has to say in a call into its line
 * and then the generation, and the others wait until the line has reached it: so one line goes
 * from each core to each other, and the values come with the news. For two workers there is
 * nothing shorter; for very many a tree would be.
 *
 * There are two places for values, used in turn. Before a worker uses one again, all others have
 * reached the generation between, and read what was in it before that. */
#include "team.h"

#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

struct line {
	_Alignas(128) atomic_uint generation;
	double values[2][TEAM_VALUES];
};

struct team_shared {
	/* Written by rank 0 before `ready` of its own, read by others after it. */
	uint64_t bytes;
	int size;
	enum team_wait wait;
	/* Each worker's, when it is there. */
	struct {
		_Alignas(128) atomic_uint ready;
		int64_t setup_ns;
	} workers[TEAM_MAX];
	struct line lines[TEAM_MAX];
	_Alignas(4096) unsigned char memory[];
};

/* Semaphores of a set that its workers wait in, by turns: see pass. */
#define SEMAPHORES 3

static void check(bool fine, const char *call)
{
	if (!fine)
		fail("%s: %s", call, strerror(errno));
}

/* Sleeps until all operations are possible. */
static void operate(const struct team *team, struct sembuf *ops, size_t count)
{
	const struct timespec patience = {.tv_sec = PATIENCE_S};

	while (semtimedop(team->set, ops, count, &patience) < 0) {
		if (errno == EAGAIN)
			fail("the others have not moved for %d s: are they still there?", PATIENCE_S);
		check(errno == EINTR, "semop");
	}
}

/* A barrier of sleepers. Of the semaphore of this generation, which begins with the number of
 * workers, each takes one and waits for zero. Rank 0 fills the one of the next generation, in the
 * same call: it was used two generations ago, and nobody waits in it any more when rank 0 is here. */
static void pass(const struct team *team)
{
	const unsigned short now = (unsigned short)(team->generation % SEMAPHORES);
	const unsigned short next = (unsigned short)((now + 1) % SEMAPHORES);
	struct sembuf arrive[2] = {
		{.sem_num = now, .sem_op = -1},
		{.sem_num = next, .sem_op = (short)team->size},
	};
	struct sembuf wait = {.sem_num = now, .sem_op = 0};

	operate(team, arrive, team->rank == 0 ? 2 : 1);
	operate(team, &wait, 1);
}

/* Waits until a worker has reached a generation. */
static void await(const struct team *team, int rank, unsigned generation)
{
	atomic_uint *reached = &team->shared->lines[rank].generation;
	struct spin spin = {0};

	while ((int)(atomic_load_explicit(reached, memory_order_acquire) - generation) < 0)
		spin_once(&spin);
}

static void await_all(const struct team *team, unsigned generation)
{
	for (int rank = 0; rank < team->size; rank++)
		await(team, rank, generation);
}

/* Tells the others that this worker has reached the team's generation. */
static void reach(const struct team *team)
{
	atomic_store_explicit(&team->shared->lines[team->rank].generation, team->generation,
			      memory_order_release);
}

/* A worker's place for values in this generation. */
static double *values_of(const struct team *team, int rank)
{
	return team->shared->lines[rank].values[team->generation % 2];
}

/* Waits until all workers are here. */
static void meet(const struct team *team)
{
	if (team->wait == TEAM_SEMAPHORE) {
		pass(team);
		return;
	}
	reach(team);
	await_all(team, team->generation);
}

void team_barrier(struct team *team)
{
	team->generation++;
	meet(team);
}

void team_sum(struct team *team, double *values, int count)
{
	team->generation++;
	memcpy(values_of(team, team->rank), values, (size_t)count * sizeof *values);
	meet(team);
	for (int i = 0; i < count; i++) {
		values[i] = 0;
		for (int rank = 0; rank < team->size; rank++)
			values[i] += values_of(team, rank)[i];
	}
}

void team_broadcast(struct team *team, void *data, size_t bytes)
{
	team->generation++;
	if (team->rank == 0) {
		/* Who has not come as far may still be reading what the place had before. */
		if (team->wait == TEAM_SPIN)
			await_all(team, team->generation - 1);
		memcpy(values_of(team, 0), data, bytes);
	}
	if (team->wait == TEAM_SEMAPHORE)
		pass(team);
	else if (team->rank != 0)
		await(team, 0, team->generation);
	if (team->rank != 0)
		memcpy(data, values_of(team, 0), bytes);
	reach(team);
}

static void attach(struct team *team)
{
	team->shared = shmat(team->segment, NULL, 0);
	check(team->shared != (void *)-1, "shmat");
	team->memory = team->shared->memory;
}

/* Rank 0's part of the start. */
static void make(struct team *team, const struct team_options *options, size_t bytes)
{
	const int flags = IPC_CREAT | IPC_EXCL | 0600;

	team->segment = shmget(options->key, sizeof(struct team_shared) + bytes, flags);
	if (team->segment < 0)
		fail("shmget(0x%x, IPC_CREAT | IPC_EXCL): %s%s", (unsigned)options->key,
		     strerror(errno), errno == EEXIST ? HINT_EXISTS("M") : "");
	attach(team);
	if (team->wait == TEAM_SEMAPHORE) {
		/* That of the first generation is full. */
		struct sembuf fill = {.sem_num = 1, .sem_op = (short)team->size};

		team->set = semget(options->key, SEMAPHORES, flags);
		if (team->set < 0)
			fail("semget(0x%x, IPC_CREAT | IPC_EXCL): %s%s", (unsigned)options->key,
			     strerror(errno), errno == EEXIST ? HINT_EXISTS("S") : "");
		operate(team, &fill, 1);
	}
	team->shared->bytes = bytes;
	team->shared->size = team->size;
	team->shared->wait = team->wait;
	atomic_store_explicit(&team->shared->workers[0].ready, 1, memory_order_release);
}

static int get_segment(key_t key)
{
	return shmget(key, 0, 0);
}

/* The part of a worker that was started by hand. Waiting for rank 0 is not what it is timed for. */
static void join(struct team *team, const struct team_options *options, size_t bytes)
{
	int64_t start;

	find(get_segment, options->key, "shm");
	start = now_ns();
	team->segment = get_segment(options->key);
	check(team->segment >= 0, "shmget");
	attach(team);
	team->setup_ns = now_ns() - start;
	wait_until_set(&team->shared->workers[0].ready);
	if (team->shared->bytes != bytes || team->shared->size != team->size ||
	    team->shared->wait != team->wait)
		fail("all workers must be started with the same arguments, but for --rank");
	start = now_ns();
	if (team->wait == TEAM_SEMAPHORE) {
		team->set = semget(options->key, 0, 0);
		check(team->set >= 0, "semget");
	}
	team->setup_ns += now_ns() - start;
}

/* Forks all workers but this one. Returns in each of them, with its rank. */
static void fork_others(struct team *team)
{
	for (int rank = 1; rank < team->size; rank++) {
		pid_t child = fork();

		check(child >= 0, "fork");
		if (child == 0) {
			team->rank = rank;
			return;
		}
	}
}

struct team team_start(const struct team_options *options, size_t bytes)
{
	const bool by_hand = options->rank >= 0;
	const int64_t start = now_ns();
	struct team team = {
		.rank = by_hand ? options->rank : 0,
		.size = options->size,
		.wait = options->wait,
	};
	int64_t slowest = 0;

	if (team.rank == 0)
		make(&team, options, bytes);
	else
		join(&team, options, bytes);
	if (!by_hand)
		fork_others(&team);
	if (team.rank == 0)
		team.setup_ns = now_ns() - start;
	if (options->pin)
		pin((unsigned)team.rank);
	if (team.rank != 0) {
		team.forked = !by_hand;
		team.shared->workers[team.rank].setup_ns = team.setup_ns;
		atomic_store_explicit(&team.shared->workers[team.rank].ready, 1, memory_order_release);
		return team;
	}
	for (int rank = 1; rank < team.size; rank++) {
		wait_until_set(&team.shared->workers[rank].ready);
		if (slowest < team.shared->workers[rank].setup_ns)
			slowest = team.shared->workers[rank].setup_ns;
	}
	team.setup_ns += slowest - now_ns();
	check(shmctl(team.segment, IPC_RMID, NULL) == 0, "shmctl(IPC_RMID)");
	team.setup_ns += now_ns();
	return team;
}

void team_end(struct team *team)
{
	int64_t start;
	int status;

	team_barrier(team);
	/* A sleeper that has passed the barrier says so: then it needs the set no more. */
	reach(team);
	if (team->forked)
		_exit(0);
	if (team->rank != 0)
		return;
	await_all(team, team->generation);
	start = now_ns();
	if (team->wait == TEAM_SEMAPHORE)
		check(semctl(team->set, 0, IPC_RMID) == 0, "semctl(IPC_RMID)");
	team->setup_ns += now_ns() - start;
	while (wait(&status) > 0)
		if (status != 0)
			fail("a worker ended with status 0x%x", (unsigned)status);
}
