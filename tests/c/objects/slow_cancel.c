// SPDX-License-Identifier: MIT OR Apache-2.0
/* An object to preload behind the library: pthread_cancel as it is where the C library has to load its unwinder
 * first, from a slow disk, or where the thread that asks loses its processor before it has got far. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

int pthread_cancel(pthread_t thread)
{
	int (*real)(pthread_t) = (int (*)(pthread_t))dlsym(RTLD_NEXT, "pthread_cancel");

	usleep(20000);
	return real(thread);
}
