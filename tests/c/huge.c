// SPDX-License-Identifier: MIT OR Apache-2.0
/* Segments of huge pages: what can be made, what IPC_STAT says of it, whether it can be touched.
 * Prints one line a step; the same natively and routed. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/shm.h>

#define SIZE_BITS(shift) ((int)((unsigned)(shift) << 26))

static const char *outcome(int failed)
{
	return failed ? strerror(errno) : "ok";
}

static void try(const char *what, size_t size, int flags)
{
	int id = shmget(IPC_PRIVATE, size, 0600 | IPC_CREAT | SHM_HUGETLB | flags);
	struct shmid_ds ds;
	char *at;

	printf("%s: get %s\n", what, outcome(id < 0));
	if (id < 0)
		return;
	at = shmat(id, NULL, 0);
	printf("%s: attach %s\n", what, outcome(at == (void *)-1));
	if (at != (void *)-1) {
		at[0] = 1;
		printf("%s: lock %s\n", what, outcome(shmctl(id, SHM_LOCK, NULL) != 0));
		printf("%s: stat %s\n", what, outcome(shmctl(id, IPC_STAT, &ds) != 0));
		printf("%s: size %zu nattch %lu mode %o\n", what, ds.shm_segsz,
		       (unsigned long)ds.shm_nattch, ds.shm_perm.mode);
		printf("%s: detach %s\n", what, outcome(shmdt(at) != 0));
	}
	printf("%s: remove %s\n", what, outcome(shmctl(id, IPC_RMID, NULL) != 0));
}

int main(void)
{
	try("2 MiB by size bits", 1, SIZE_BITS(21));
	try("default size", 4 << 20, 0);
	try("default size, odd length", (4 << 20) + 5, 0);
	try("1 GiB pages, of which there are none", 1, SIZE_BITS(30));
	try("a page size there is not", 1, SIZE_BITS(17));
	try("more than there are", (size_t)1 << 30, 0);
	try("more than there are, not reserved", (size_t)1 << 30, SHM_NORESERVE);
	try("no bytes", 0, 0);
	return 0;
}
