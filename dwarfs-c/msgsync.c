// SPDX-License-Identifier: MIT OR Apache-2.0
/* Msgsync: the buffer of Sync goes back and forth as a message of a queue, once each way in an
 * iteration; each side fills it at its turn. */
#include "common/pair.h"
#include "common/watch.h"

#include <sys/msg.h>

/* As long as a queue of the kernel's may be (MSGMNB) that nobody has enlarged. */
#define TEXT_MAX 16384

struct side {
	int queue;
	int my_id;
	uint64_t size;
};

static struct {
	long type;
	unsigned char text[TEXT_MAX];
} message;

__attribute__((noreturn)) static void usage(void)
{
	fprintf(stderr, "usage: msgsync " PAIR_USAGE
			"Start it twice, with --id 0 and --id 1; 0 makes the queue and removes it. The\n"
			"kernel's messages have at most 8192 bytes, as long as nobody raises MSGMAX.\n");
	exit(2);
}

/* A message's type is the number of the side that it is for, and one. */
static void put(const struct side *side)
{
	message.type = !side->my_id + 1;
	memset(message.text, side->my_id, side->size);
	while (msgsnd(side->queue, &message, side->size, 0) < 0)
		if (errno != EINTR)
			fail("msgsnd of %llu bytes: %s%s", (unsigned long long)side->size,
			     strerror(errno),
			     errno == EINVAL ? "; is that more than MSGMAX?" : "");
}

static void take(const struct side *side)
{
	ssize_t got;

	while ((got = msgrcv(side->queue, &message, side->size, side->my_id + 1, 0)) < 0)
		if (errno != EINTR)
			fail("msgrcv: %s", strerror(errno));
	if ((size_t)got != side->size)
		fail("the two sides must be given the same --size");
}

static uint64_t take_turns(void *with, uint64_t turns)
{
	const struct side side = *(const struct side *)with;

	for (uint64_t i = 0; i < turns; i++) {
		moves++;
		if (side.my_id == 0)
			put(&side);
		take(&side);
		if (side.my_id == 1)
			put(&side);
	}
	return turns;
}

static void take_checked_turns(const struct side *side)
{
	for (int i = 0; i < WARM_UP; i++) {
		if (side->my_id == 0)
			put(side);
		take(side);
		if (!filled_with(message.text, !side->my_id, side->size))
			fail("turn %d: the message does not hold what the peer wrote", i);
		if (side->my_id == 1)
			put(side);
	}
}

static int get_queue(key_t key)
{
	return msgget(key, 0);
}

int main(int argc, char **argv)
{
	struct pair pair = pair_of(argc, argv, TEXT_MAX, usage);
	struct side side = {.my_id = pair.my_id, .size = pair.size};

	watch();
	if (pair.my_id == 0) {
		side.queue = msgget(pair.key, IPC_CREAT | IPC_EXCL | 0600);
		if (side.queue < 0)
			fail("msgget(0x%x, IPC_CREAT | IPC_EXCL): %s%s", (unsigned)pair.key,
			     strerror(errno), errno == EEXIST ? HINT_EXISTS("Q") : "");
	} else {
		side.queue = find(get_queue, pair.key, "msg");
	}
	take_checked_turns(&side);
	measure(&pair.measure, take_turns, &side);
	print_turns(&pair.measure, pair.size);
	/* Side 0 has received the last message. */
	if (pair.my_id == 0 && msgctl(side.queue, IPC_RMID, NULL) < 0)
		fail("msgctl(IPC_RMID): %s", strerror(errno));
	return 0;
}
