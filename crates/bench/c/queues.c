// SPDX-License-Identifier: MIT OR Apache-2.0
/* Two or more processes at one message queue, for vshmem-bench; knows nothing of Vshmem.
 *
 *	queues ping 0|1 KEY TURNS SIZE		two processes by turns; started twice, 0 makes the queue
 *	queues stream 0|1 KEY MESSAGES SIZE	0 makes the queue and receives, 1 sends
 *	queues typed PAIRS KEY MESSAGES SIZE	so many senders, and a receiver for each, of its type;
 *						forked here
 *
 * Each prints the time that a turn, or a message, took. */
#define _GNU_SOURCE
#include "turns.h"

#include <sys/msg.h>

static struct {
	long type;
	char text[65536];
} message;

static int get(key_t key)
{
	return msgget(key, 0);
}

static int make(key_t key)
{
	int id = msgget(key, IPC_CREAT | IPC_EXCL | 0600);

	if (id < 0)
		fail("msgget(0x%x): %s", (unsigned)key, strerror(errno));
	return id;
}

static void put(int id, long type, size_t size)
{
	message.type = type;
	if (msgsnd(id, &message, size, 0) != 0)
		fail("msgsnd: %s", strerror(errno));
}

static void take(int id, long type, size_t size)
{
	if (msgrcv(id, &message, sizeof message.text, type, 0) != (ssize_t)size)
		fail("msgrcv: %s", strerror(errno));
}

static void removed(int id)
{
	if (msgctl(id, IPC_RMID, NULL) != 0)
		fail("msgctl(IPC_RMID): %s", strerror(errno));
}

static void ping(const struct part *part)
{
	int me = part->number;
	int id = me == 0 ? make(part->key) : find(get, part->key, "msg");
	int64_t start = 0;

	for (uint64_t i = 0; i < part->turns + WARM_UP; i++) {
		if (i == WARM_UP)
			start = now_ns();
		if (me == 0) {
			put(id, 1, part->size);
			take(id, 2, part->size);
		} else {
			take(id, 1, part->size);
			put(id, 2, part->size);
		}
	}
	told(2 * part->turns, start, 2.0 * (double)part->turns);
	if (me == 0)
		removed(id);
}

static void stream(const struct part *part)
{
	int id = part->number == 0 ? make(part->key) : find(get, part->key, "msg");
	int64_t start = 0;

	for (uint64_t i = 0; i < part->turns + WARM_UP; i++) {
		if (i == WARM_UP)
			start = now_ns();
		if (part->number == 0)
			take(id, 1, part->size);
		else
			put(id, 1, part->size);
	}
	told(part->turns, start, (double)part->turns);
	if (part->number == 0)
		removed(id);
}

static size_t typed_size;

/* The type that whoever takes part waits for before it begins. */
#define START 1000

static void send_all(int id, uint64_t turns, int number)
{
	take(id, START, 0);
	for (uint64_t i = 0; i < turns; i++)
		put(id, number + 1, typed_size);
}

static void take_all(int id, uint64_t turns, int number)
{
	take(id, START, 0);
	for (uint64_t i = 0; i < turns; i++)
		take(id, number + 1, typed_size);
}

static void typed(const struct part *part)
{
	int id = make(part->key);
	int64_t start;

	typed_size = part->size;
	for (int i = 0; i < part->number; i++) {
		begin(send_all, id, part->turns, i);
		begin(take_all, id, part->turns, i);
	}
	usleep(50000);
	start = now_ns();
	for (int i = 0; i < 2 * part->number; i++)
		put(id, START, 0);
	wait_for_all(2 * part->number);
	told((uint64_t)part->number * part->turns, start,
	     (double)part->number * (double)part->turns);
	removed(id);
}

int main(int argc, char **argv)
{
	struct part part = part_of(argc, argv);

	memset(message.text, 'm', sizeof message.text);
	if (strcmp(argv[1], "ping") == 0)
		ping(&part);
	else if (strcmp(argv[1], "stream") == 0)
		stream(&part);
	else if (strcmp(argv[1], "typed") == 0)
		typed(&part);
	else
		fail("no part %s", argv[1]);
	return 0;
}
