// SPDX-License-Identifier: MIT OR Apache-2.0
/* Costs: what it takes to have a segment, for its maker and for its peer. In each iteration side 0
 * creates and attaches a segment and writes a byte of each page; side 1 finds and attaches it and
 * reads a byte of each; then it is detached and removed. Each line is the time of one of these, in
 * nanoseconds. The iterations use keys from KEY on. */
#include "common/pair.h"

#include <sys/shm.h>

#define PAGE 4096

__attribute__((noreturn)) static void usage(void)
{
	fprintf(stderr, "usage: costs --id 0|1 --key KEY [--size BYTES] [--iters N]\n"
			"Start it twice, with --id 0 and --id 1.\n");
	exit(2);
}

/* Says what was done since `start`, and returns the time now. */
static int64_t lap(const char *what, int64_t start)
{
	int64_t now = now_ns();

	printf("%s %lld ns\n", what, (long long)(now - start));
	/* The line is not part of what comes next. */
	return now_ns();
}

static volatile unsigned char *attach(int id)
{
	void *at = shmat(id, NULL, 0);

	if (at == (void *)-1)
		fail("shmat: %s", strerror(errno));
	return at;
}

static unsigned char touch(volatile unsigned char *bytes, uint64_t size, bool write)
{
	unsigned char all = 0;

	for (uint64_t at = 0; at < size; at += PAGE) {
		if (write)
			bytes[at] = 1;
		all |= bytes[at];
	}
	return all;
}

static void detach(volatile unsigned char *bytes)
{
	if (shmdt((const void *)bytes) < 0)
		fail("shmdt: %s", strerror(errno));
}

static unsigned long attachments(int id)
{
	struct shmid_ds about;

	if (shmctl(id, IPC_STAT, &about) < 0)
		fail("shmctl(IPC_STAT): %s", strerror(errno));
	return about.shm_nattch;
}

/* The last word of a segment is the peer's: it has been here. */
static volatile atomic_uint *word(volatile unsigned char *bytes, uint64_t size)
{
	return (volatile atomic_uint *)(bytes + (size - 1) / PAGE * PAGE + PAGE - sizeof(atomic_uint));
}

static void make(const struct pair *pair, key_t key)
{
	int64_t start = now_ns();
	int id = shmget(key, pair->size, IPC_CREAT | IPC_EXCL | 0600);
	volatile unsigned char *bytes;

	if (id < 0)
		fail("shmget(0x%x, IPC_CREAT | IPC_EXCL): %s%s", (unsigned)key, strerror(errno),
		     errno == EEXIST ? HINT_EXISTS("M") : "");
	start = lap("create", start);
	bytes = attach(id);
	start = lap("attach", start);
	touch(bytes, pair->size, true);
	lap("touch", start);
	while (!atomic_load(word(bytes, pair->size)))
		relax();
	while (attachments(id) > 1)
		sched_yield();
	start = now_ns();
	detach(bytes);
	start = lap("detach", start);
	if (shmctl(id, IPC_RMID, NULL) < 0)
		fail("shmctl(IPC_RMID): %s", strerror(errno));
	lap("remove", start);
}

static void use(const struct pair *pair, key_t key)
{
	volatile unsigned char *bytes;
	int64_t start;
	int id;

	do
		start = now_ns();
	while ((id = shmget(key, 0, 0)) < 0 && errno == ENOENT);
	if (id < 0)
		fail("shmget(0x%x): %s", (unsigned)key, strerror(errno));
	start = lap("find", start);
	bytes = attach(id);
	start = lap("attach", start);
	touch(bytes, pair->size, false);
	lap("touch", start);
	atomic_store(word(bytes, pair->size), 1);
	start = now_ns();
	detach(bytes);
	lap("detach", start);
}

int main(int argc, char **argv)
{
	struct pair pair = pair_of(argc, argv, UINT64_C(1) << 32, usage);

	for (uint64_t i = 0; i < pair.measure.iters; i++) {
		key_t key = pair.key + (key_t)i;

		if (pair.my_id == 0)
			make(&pair, key);
		else
			use(&pair, key);
	}
	return 0;
}
