// SPDX-License-Identifier: MIT OR Apache-2.0
// What all parts of conf_interp share: how an answer is put together, and what calls are given to
// write to or read from.
#ifndef CONF_H
#define CONF_H
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARGS 48
#define UNTOUCHED 12345 /* no errno of the kernel */
#define PAGE 4096L

// Kinds of buffer that a shmctl is given.
enum { GOOD, NULL_POINTER, MINUS_ONE, UNMAPPED, READ_ONLY, HALF };

static char answer[2048];
static size_t answered;
static sigset_t mask_at_start;
static sigjmp_buf after_fault;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
	va_list list;
	va_start(list, format);
	int n = vsnprintf(answer + answered, sizeof answer - answered, format, list);
	va_end(list);
	if (n > 0)
		answered += (size_t)n;
	if (answered >= sizeof answer)
		answered = sizeof answer - 1;
}

static void die(const char *what) {
	perror(what);
	_exit(70);
}

// The result of a call: to be said before anything else is done.
static void result(long value) {
	int error = errno;
	sigset_t mask = {0};
	if (value == -1) {
		const char *name = strerrorname_np(error);
		say("-1 %s", name ? name : "unknown");
	} else {
		say("%ld -", value);
		if (error != UNTOUCHED)
			say(" !errno=%d", error);
	}
	sigprocmask(SIG_BLOCK, NULL, &mask);
	if (memcmp(&mask, &mask_at_start, sizeof mask) != 0)
		say(" !mask");
	errno = UNTOUCHED;
}

static void on_fault(int signal) {
	siglongjmp(after_fault, signal);
}

// Three pages: one to write, one to read only, one that is not there.
static char *probe_pages(void) {
	static char *pages;
	if (!pages) {
		pages = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (pages == MAP_FAILED || mprotect(pages + PAGE, PAGE, PROT_READ) ||
		    mprotect(pages + 2 * PAGE, PAGE, PROT_NONE))
			die("probe pages");
		errno = UNTOUCHED;
	}
	return pages;
}

static void *buffer(int kind) {
	char *pages = probe_pages();
	switch (kind) {
	case NULL_POINTER:
		return NULL;
	case MINUS_ONE:
		return (void *)-1L;
	case UNMAPPED:
		return pages + 2 * PAGE;
	case READ_ONLY:
		return pages + PAGE;
	case HALF: // begins well, ends where nothing may be written or read
		return pages + 2 * PAGE - 16;
	default:
		return pages;
	}
}

#endif
