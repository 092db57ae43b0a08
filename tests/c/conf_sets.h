// SPDX-License-Identifier: MIT OR Apache-2.0
// The calls on semaphore sets that conf_interp makes.
#ifndef CONF_SETS_H
#define CONF_SETS_H
#include "conf.h"
#include <sys/sem.h>
#include <time.h>

union semun {
	int val;
	void *buffer;
};

static int set_control(int raw, int id, int sem, int command, union semun argument) {
	return raw ? (int)syscall(SYS_semctl, id, sem, command, argument) : semctl(id, sem, command, argument);
}

static void set_get(int raw, const uint64_t *a) {
	key_t key = (key_t)a[0];
	result(raw ? (int)syscall(SYS_semget, key, (int)a[1], (int)a[2])
		   : semget(key, (int)a[1], (int)a[2]));
}

// a[1]: 0 semop, 1 no timeout, 2 the one in a[2] and a[3], 3 one that is nowhere; a[4] operations follow.
static void set_operate(int raw, const uint64_t *a) {
	struct sembuf ops[(ARGS - 5) / 3];
	struct timespec time = {(time_t)a[2], (long)a[3]}, *timeout = NULL;
	size_t count = a[4];
	for (size_t i = 0; i < count && i < sizeof ops / sizeof *ops; i++)
		ops[i] = (struct sembuf){(unsigned short)a[5 + 3 * i], (short)a[6 + 3 * i], (short)a[7 + 3 * i]};
	if (a[1] == 2)
		timeout = &time;
	else if (a[1] == 3)
		timeout = buffer(UNMAPPED);
	errno = UNTOUCHED;
	if (a[1] == 0)
		result(raw ? (int)syscall(SYS_semop, (int)a[0], ops, count) : semop((int)a[0], ops, count));
	else
		result(raw ? (int)syscall(SYS_semtimedop, (int)a[0], ops, count, timeout)
			   : semtimedop((int)a[0], ops, count, timeout));
}

// Operations on a semaphore that no set has; where they can only be read they are zeros.
static void set_operate_badly(int raw, const uint64_t *a) {
	struct sembuf *all = buffer(GOOD), *ops = buffer((int)a[1]);
	for (size_t i = 0; i < PAGE / sizeof *all; i++)
		all[i] = (struct sembuf){65535, -1, IPC_NOWAIT};
	errno = UNTOUCHED;
	result(raw ? (int)syscall(SYS_semop, (int)a[0], ops, (size_t)a[2]) : semop((int)a[0], ops, a[2]));
}

static void set_number(int raw, const uint64_t *a) {
	result(set_control(raw, (int)a[0], (int)a[1], (int)a[2], (union semun){.val = (int)a[3]}));
}

static void set_get_all(int raw, const uint64_t *a) {
	unsigned short *all = buffer(GOOD);
	memset(all, 0x5a, PAGE);
	int got = set_control(raw, (int)a[0], 0, GETALL, (union semun){.buffer = buffer((int)a[1])});
	result(got);
	if (got != -1)
		say(" values=%d,%d,%d,%d", all[0], all[1], all[2], all[3]);
}

static void set_set_all(int raw, const uint64_t *a) {
	unsigned short *all = buffer(GOOD);
	for (size_t i = 0; i < PAGE / sizeof *all; i++)
		all[i] = (unsigned short)(a[1] + i % 3);
	errno = UNTOUCHED;
	result(set_control(raw, (int)a[0], 0, SETALL, (union semun){.buffer = buffer((int)a[2])}));
}

static void say_set(const struct semid_ds *s) {
	say(" key=%d uid=%u gid=%u cuid=%u cgid=%u mode=%o sems=%lu otime=%ld ctime=%ld", s->sem_perm.__key,
	    s->sem_perm.uid, s->sem_perm.gid, s->sem_perm.cuid, s->sem_perm.cgid, (unsigned)s->sem_perm.mode,
	    s->sem_nsems, s->sem_otime, s->sem_ctime);
}

static void set_stat(int raw, const uint64_t *a) {
	struct semid_ds *s = buffer((int)a[1]);
	memset(buffer(GOOD), 0x5a, sizeof *s);
	int got = set_control(raw, (int)a[0], 0, IPC_STAT, (union semun){.buffer = s});
	result(got);
	if (got != -1)
		say_set(s);
}

static void set_list(int raw, const uint64_t *a) {
	struct seminfo info;
	struct semid_ds s;
	int last = set_control(raw, 0, 0, SEM_INFO, (union semun){.buffer = &info});
	for (int index = 0; index <= last; index++) {
		int id = set_control(raw, index, 0, a[1] ? SEM_STAT_ANY : SEM_STAT, (union semun){.buffer = &s});
		if (id == -1 || id != (int)a[0])
			continue;
		errno = UNTOUCHED;
		result(0);
		say_set(&s);
		return;
	}
	say("-1 unlisted");
}

static void set_set(int raw, const uint64_t *a) {
	struct semid_ds *s = buffer((int)a[4]);
	if (a[4] == GOOD) {
		memset(s, 0, sizeof *s);
		s->sem_perm.uid = (uid_t)a[1];
		s->sem_perm.gid = (gid_t)a[2];
		s->sem_perm.mode = (unsigned short)a[3];
	}
	result(set_control(raw, (int)a[0], 0, IPC_SET, (union semun){.buffer = s}));
}

static void set_any_control(int raw, const uint64_t *a) {
	result(set_control(raw, (int)a[0], 0, (int)a[1], (union semun){.buffer = buffer((int)a[2])}));
}

static void set_limits(int raw, const uint64_t *a) {
	struct seminfo *i = buffer((int)a[0]);
	int got = set_control(raw, 0, 0, IPC_INFO, (union semun){.buffer = i});
	result(got < 0 ? got : 0); // the highest index differs
	if (got != -1)
		say(" map=%d mni=%d mns=%d mnu=%d msl=%d opm=%d ume=%d usz=%d vmx=%d aem=%d", i->semmap, i->semmni,
		    i->semmns, i->semmnu, i->semmsl, i->semopm, i->semume, i->semusz, i->semvmx, i->semaem);
}

static void set_totals(int raw, const uint64_t *a) {
	struct seminfo *i = buffer((int)a[0]);
	int got = set_control(raw, 0, 0, SEM_INFO, (union semun){.buffer = i});
	result(got < 0 ? got : 0);
	if (got != -1)
		say(" used=%d sems=%d", i->semusz, i->semaem);
}

// All that there is to see of a set.
static void set_dump(int raw, const uint64_t *a) {
	struct semid_ds s;
	const union semun none = {.val = 0};
	int id = (int)a[0], got = set_control(raw, id, 0, IPC_STAT, (union semun){.buffer = &s});
	result(got);
	for (int sem = 0; got != -1 && sem < (int)s.sem_nsems && sem < 3; sem++)
		say(" value=%d pid=%d ncnt=%d zcnt=%d", set_control(raw, id, sem, GETVAL, none),
		    set_control(raw, id, sem, GETPID, none), set_control(raw, id, sem, GETNCNT, none),
		    set_control(raw, id, sem, GETZCNT, none));
	if (got != -1)
		say(" otime=%ld ctime=%ld", s.sem_otime, s.sem_ctime);
}

#endif
