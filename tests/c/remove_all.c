// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Removes all segments (-m), sets (-s) and queues (-q) that it can see, whoever made them; without an
// option those of all kinds.

#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

static int remove_segment(int id) { return shmctl(id, IPC_RMID, NULL); }
static int remove_set(int id) { return semctl(id, 0, IPC_RMID); }
static int remove_queue(int id) { return msgctl(id, IPC_RMID, NULL); }

static const struct kind {
	const char *option;
	const char *list;
	int (*remove)(int id);
} kinds[] = {{"-m", "/proc/sysvipc/shm", remove_segment},
	     {"-s", "/proc/sysvipc/sem", remove_set},
	     {"-q", "/proc/sysvipc/msg", remove_queue}};

static int wanted(int argc, char **argv, const char *kind) {
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], kind))
			return 1;
	return argc == 1;
}

// A line for each, of which the second word is the id, below one line of titles.
static int remove_listed(const struct kind *kind) {
	char line[512];
	FILE *list = fopen(kind->list, "r");
	if (!list || !fgets(line, sizeof line, list)) {
		perror(kind->list);
		return 1;
	}
	while (fgets(line, sizeof line, list)) {
		int id;
		if (sscanf(line, "%*d %d", &id) != 1) {
			fprintf(stderr, "%s has the line %s", kind->list, line);
			return 1;
		}
		if (kind->remove(id) == -1)
			perror(kind->list);
	}
	fclose(list);
	return 0;
}

int main(int argc, char **argv) {
	int failed = 0;
	for (int i = 0; i < 3; i++)
		if (wanted(argc, argv, kinds[i].option))
			failed |= remove_listed(&kinds[i]);
	return failed;
}
