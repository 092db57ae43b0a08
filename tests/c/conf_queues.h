// SPDX-License-Identifier: MIT OR Apache-2.0
// The calls on message queues that conf_interp makes. A text is letters that follow from a number and
// their place, and is answered as a digest.
#ifndef CONF_QUEUES_H
#define CONF_QUEUES_H
#include "conf.h"
#include <sys/msg.h>

#define TYPE_BYTES sizeof(long)
#define MOST 8192UL /* MSGMAX of an IPC namespace that nobody has changed */
#define UNWRITTEN 0x5a
#define LISTED 20

// Where a good message lies.
enum { IN_PAGES, ON_STACK, ON_HEAP, UNALIGNED, IN_DATA, AT_END };

#define QUEUE_PAGES 3L /* enough for the largest message */

// Pages to write, and one behind them that is not there.
static char *queue_pages(void) {
	static char *pages;
	if (!pages) {
		pages = mmap(NULL, (QUEUE_PAGES + 1) * PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (pages == MAP_FAILED || mprotect(pages + QUEUE_PAGES * PAGE, PAGE, PROT_NONE))
			die("queue pages");
	}
	return pages;
}

// A place for a message of a length with its type, all of it UNWRITTEN.
static char *good_message(int where, size_t length, char *stack) {
	static char data[TYPE_BYTES + MOST];
	static char *heap;
	char *message;
	if (!heap && !(heap = malloc(TYPE_BYTES + MOST + 1)))
		die("malloc");
	switch (where) {
	case ON_STACK:
		message = stack;
		break;
	case ON_HEAP:
		message = heap;
		break;
	case UNALIGNED:
		message = heap + 1;
		break;
	case IN_DATA:
		message = data;
		break;
	case AT_END:
		message = queue_pages() + QUEUE_PAGES * PAGE - TYPE_BYTES - length;
		break;
	default:
		message = queue_pages();
	}
	memset(message, UNWRITTEN, TYPE_BYTES + length);
	return message;
}

// A place for a message of any kind, of which the bytes that are `touchable` can be touched by us.
static char *message_buffer(int kind, int where, size_t length, char *stack, size_t *touchable) {
	char *end = queue_pages() + QUEUE_PAGES * PAGE;
	*touchable = 0;
	switch (kind) {
	case GOOD:
		*touchable = length;
		return good_message(where, length, stack);
	case READ_ONLY:
		*touchable = length;
		return good_message(IN_PAGES, length, stack);
	case HALF:
		*touchable = length < 8 ? length : 8;
		memset(end - TYPE_BYTES - 8, UNWRITTEN, TYPE_BYTES + 8);
		return end - TYPE_BYTES - 8;
	case UNMAPPED:
		return end;
	default:
		return buffer(kind);
	}
}

static void protect_pages(int kind, int protection) {
	if (kind == READ_ONLY && mprotect(queue_pages(), QUEUE_PAGES * PAGE, protection))
		die("mprotect");
}

static uint32_t digest(uint32_t so_far, const char *text, size_t length) {
	for (size_t i = 0; i < length; i++)
		so_far = (so_far ^ (unsigned char)text[i]) * 16777619u;
	return so_far;
}
#define DIGEST 2166136261u

static void queue_get(int raw, const uint64_t *a) {
	key_t key = (key_t)a[0];
	result(raw ? (int)syscall(SYS_msgget, key, (int)a[1]) : msgget(key, (int)a[1]));
}

// a: id, type, size, flags, the text's number, kind of buffer, place of a good one.
static void queue_send(int raw, const uint64_t *a) {
	char stack[TYPE_BYTES + MOST];
	int id = (int)a[0], flags = (int)a[3], kind = (int)a[5];
	long type = (long)a[1];
	size_t size = a[2], touchable;
	char *message = message_buffer(kind, (int)a[6], size <= MOST ? size : MOST, stack, &touchable);
	if (kind == GOOD || kind == READ_ONLY || kind == HALF)
		memcpy(message, &type, sizeof type);
	for (size_t i = 0; i < touchable; i++)
		message[TYPE_BYTES + i] = (char)('a' + (a[4] * 7 + i + i / 26) % 26);
	protect_pages(kind, PROT_READ);
	errno = UNTOUCHED;
	result(raw ? (int)syscall(SYS_msgsnd, id, message, size, flags) : msgsnd(id, message, size, flags));
	protect_pages(kind, PROT_READ | PROT_WRITE);
}

// a: id, room, type, flags, kind of buffer, place of a good one.
static void queue_receive(int raw, const uint64_t *a) {
	char stack[TYPE_BYTES + MOST];
	int id = (int)a[0], flags = (int)a[3], kind = (int)a[4];
	long type = (long)a[2];
	size_t room = a[1], touchable;
	char *message = message_buffer(kind, (int)a[5], room <= MOST ? room : MOST, stack, &touchable);
	protect_pages(kind, PROT_READ);
	errno = UNTOUCHED;
	ssize_t got = raw ? (ssize_t)syscall(SYS_msgrcv, id, message, room, type, flags)
			  : msgrcv(id, message, room, type, flags);
	int fault = got < 0 && errno == EFAULT;
	result(got);
	protect_pages(kind, PROT_READ | PROT_WRITE);
	if (got >= 0) {
		memcpy(&type, message, sizeof type);
		say(" type=%ld text=%08x", type, digest(DIGEST, message + TYPE_BYTES, (size_t)got));
	}
	// How much of one that could not be written whole was written is nobody's business.
	size_t from = got >= 0 ? TYPE_BYTES + (size_t)got : 0;
	for (size_t i = from; kind == GOOD && !fault && i < TYPE_BYTES + touchable; i++) {
		if (message[i] != UNWRITTEN) {
			say(" !byte%zu", i);
			break;
		}
	}
}

static int queue_control(int raw, int id, int command, void *argument) {
	return raw ? (int)syscall(SYS_msgctl, id, command, argument) : msgctl(id, command, argument);
}

static void say_queue(const struct msqid_ds *q) {
	say(" key=%d uid=%u gid=%u cuid=%u cgid=%u mode=%o qnum=%lu cbytes=%lu qbytes=%lu lspid=%d lrpid=%d "
	    "stime=%ld rtime=%ld ctime=%ld",
	    q->msg_perm.__key, q->msg_perm.uid, q->msg_perm.gid, q->msg_perm.cuid, q->msg_perm.cgid,
	    (unsigned)q->msg_perm.mode, q->msg_qnum, q->__msg_cbytes, q->msg_qbytes, q->msg_lspid,
	    q->msg_lrpid, q->msg_stime, q->msg_rtime, q->msg_ctime);
}

static void queue_stat(int raw, const uint64_t *a) {
	struct msqid_ds *q = buffer((int)a[1]);
	memset(buffer(GOOD), UNWRITTEN, sizeof *q);
	int got = queue_control(raw, (int)a[0], IPC_STAT, q);
	result(got);
	if (got != -1)
		say_queue(q);
}

static void queue_list(int raw, const uint64_t *a) {
	struct msginfo info;
	struct msqid_ds q;
	int last = queue_control(raw, 0, MSG_INFO, &info);
	for (int index = 0; index <= last; index++) {
		int id = queue_control(raw, index, a[1] ? MSG_STAT_ANY : MSG_STAT, &q);
		if (id == -1 || id != (int)a[0])
			continue;
		errno = UNTOUCHED;
		result(0);
		say_queue(&q);
		return;
	}
	say("-1 unlisted");
}

// a: id, owner, group, mode, msg_qbytes, kind of buffer.
static void queue_set(int raw, const uint64_t *a) {
	struct msqid_ds *q = buffer((int)a[5]);
	if (a[5] == GOOD) {
		memset(q, 0, sizeof *q);
		q->msg_perm.uid = (uid_t)a[1];
		q->msg_perm.gid = (gid_t)a[2];
		q->msg_perm.mode = (unsigned short)a[3];
		q->msg_qbytes = a[4];
	}
	result(queue_control(raw, (int)a[0], IPC_SET, q));
}

static void queue_any_control(int raw, const uint64_t *a) {
	result(queue_control(raw, (int)a[0], (int)a[1], buffer((int)a[2])));
}

static void queue_limits(int raw, const uint64_t *a) {
	struct msginfo *i = buffer((int)a[0]);
	int got = queue_control(raw, 0, IPC_INFO, i);
	result(got < 0 ? got : 0); // the highest index differs
	if (got != -1)
		say(" pool=%d map=%d max=%d mnb=%d mni=%d ssz=%d tql=%d seg=%u", i->msgpool, i->msgmap,
		    i->msgmax, i->msgmnb, i->msgmni, i->msgssz, i->msgtql, i->msgseg);
}

static void queue_totals(int raw, const uint64_t *a) {
	struct msginfo *i = buffer((int)a[0]);
	int got = queue_control(raw, 0, MSG_INFO, i);
	result(got < 0 ? got : 0);
	if (got != -1)
		say(" used=%d messages=%d bytes=%d", i->msgpool, i->msgmap, i->msgtql);
}

// All that there is to see of a queue: also each message, which MSG_COPY leaves where it is.
static void queue_dump(int raw, const uint64_t *a) {
	char *message = good_message(IN_DATA, MOST, NULL);
	struct msqid_ds q;
	int id = (int)a[0], got = queue_control(raw, id, IPC_STAT, &q);
	uint32_t rest = DIGEST;
	long number = 0;
	result(got);
	if (got == -1)
		return;
	say_queue(&q);
	for (;; number++) {
		ssize_t length = raw ? (ssize_t)syscall(SYS_msgrcv, id, message, MOST, number, MSG_COPY | IPC_NOWAIT)
				     : msgrcv(id, message, MOST, number, MSG_COPY | IPC_NOWAIT);
		if (length < 0)
			break;
		if (number < LISTED)
			say(" %ld:%zd:%08x", *(long *)(void *)message, length,
			    digest(DIGEST, message + TYPE_BYTES, (size_t)length));
		else
			rest = digest(rest, message, TYPE_BYTES + (size_t)length);
	}
	if (number > LISTED)
		say(" ...%ld:%08x", number - LISTED, rest);
	if (errno != ENOMSG)
		say(" !%s", strerrorname_np(errno));
	errno = UNTOUCHED;
}

#endif
