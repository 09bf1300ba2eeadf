/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every program builds a kind of kernel state, says that it is ready, is
 * checkpointed and restored while it waits, and then verifies the state by
 * itself. It says "good" and exits with 0, or says what is wrong and exits
 * with 1.
 */
#ifndef PROGRAMS_H
#define PROGRAMS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Who can run a program, and what must become of its checkpoint. */
enum {
	ANYONE = 0,
	ROOT = 1,     /* only root of the initial user namespace */
	NOT_USERNS = 2, /* root or a user, but not in a user namespace */
	ALL_CAPS = 4, /* the container gets every capability */
	/* files come and go all the time: the container is paused while its root
	 * is copied, as containerd's client does it */
	CHANGES_FILES = 8,
	/* huge pages of 2 MB, some of which the harness has the kernel set aside */
	HUGE_PAGES = 16,
	/* the container may make cgroups below its own */
	CGROUPS = 32,
	/* System V shared memory of huge pages, to which the harness gives the right */
	HUGE_SEGMENTS = 64,
	/* a file system of huge pages on /huge, for everybody */
	HUGE_MOUNT = 128,
};

struct program {
	const char *name;
	const char *about;
	int needs;
	/* NULL: it is restored. Otherwise the checkpoint must be refused with
	 * this text in its error, and the program goes on unharmed. */
	const char *refused;
	void (*run)(void);
	struct program *next;
};

void program_register(struct program *p);

#define PROGRAM_(id, needs, refused, about)                                        \
	static void id##_run(void);                                                \
	static struct program id##_program = {#id, about, needs, refused, id##_run, 0}; \
	__attribute__((constructor)) static void id##_register(void)               \
	{                                                                          \
		program_register(&id##_program);                                   \
	}                                                                          \
	static void id##_run(void)

/* PROGRAM(name, needs, about) { body } defines a program that is restored. */
#define PROGRAM(id, needs, about) PROGRAM_(id, needs, NULL, about)
/* REFUSED(name, needs, text, about) { body }: its checkpoint is refused. */
#define REFUSED(id, needs, text, about) PROGRAM_(id, needs, text, about)

/* ready says so and returns when the harness has done with the program. No
 * signal handler, mask or descriptor that the program set up is touched but
 * SIGUSR1's, by which the harness speaks. Only the first process calls it. */
void ready(void);

/* asked is non-zero once the harness has done: for programs that are busy all
 * the time. They call announce instead of ready. */
extern volatile sig_atomic_t asked;
void announce(void);

/* fail says what is wrong and ends the container. Any process may call it. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* CHECK fails with the condition's text, errno and the place. */
#define CHECK(condition)                                                              \
	do {                                                                          \
		if (!(condition))                                                     \
			fail("%s:%d: %s (errno %d, %s)", __FILE__, __LINE__, #condition, errno, strerror(errno)); \
	} while (0)

/* SYS is a system call that must not fail; its value. */
#define SYS(call)                                                                     \
	({                                                                            \
		__typeof__(call) sys_value = (call);                                  \
		if (sys_value == (__typeof__(call))-1)                                \
			fail("%s:%d: %s: errno %d, %s", __FILE__, __LINE__, #call, errno, strerror(errno)); \
		sys_value;                                                            \
	})

/* fill writes bytes that depend on seed; filled reports whether they are there. */
void fill(void *at, size_t length, uint32_t seed);
int filled(const void *at, size_t length, uint32_t seed);

/* child_exits waits for a child and returns its exit code, or fails. */
int child_exits(pid_t pid);

/* A rendezvous of processes in shared memory: post and await, by number. */
struct board {
	volatile int stage[64];
};
struct board *board_new(void);
void board_post(struct board *b, int n);
void board_await(struct board *b, int n, int value);

#endif
