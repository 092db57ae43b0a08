// SPDX-License-Identifier: MIT OR Apache-2.0
/* Built twice: as an object that makes a segment, and as a program that loads the object, named by its first
 * argument, with RTLD_DEEPBIND, has it make the segment with the key 0x5601, and prints its id. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/shm.h>

int make(key_t key)
{
	return shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600);
}

int main(int argc, char **argv)
{
	void *object = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_DEEPBIND) : NULL;
	int (*of_object)(key_t) = object ? (int (*)(key_t))dlsym(object, "make") : NULL;

	if (!of_object || of_object == make) {
		fprintf(stderr, "deep: %s\n", dlerror());
		return 1;
	}
	printf("%d\n", of_object(0x5601));
	return 0;
}
