/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <linux/futex.h>
#include <stdarg.h>

static struct program *programs;

volatile sig_atomic_t asked;

void program_register(struct program *p)
{
	p->next = programs;
	programs = p;
}

static void on_ask(int signal)
{
	/* While the first thread blocks the signal, just before it waits, another
	 * one may get it: the first one has to be woken. */
	if (gettid() != getpid()) {
		syscall(SYS_tgkill, getpid(), getpid(), signal);
		return;
	}
	asked = 1;
}

static void say(const char *text)
{
	/* One write, so that lines of several processes do not mix. */
	char line[1100];
	int n = snprintf(line, sizeof line, "%s\n", text);
	if (write(1, line, n) != n)
		_exit(3);
}

void announce(void) { say("ready"); }

void ready(void)
{
	sigset_t ask, old;
	sigemptyset(&ask);
	sigaddset(&ask, SIGUSR1);
	CHECK(sigprocmask(SIG_BLOCK, &ask, &old) == 0);
	sigset_t wait = old;
	sigdelset(&wait, SIGUSR1);
	announce();
	while (!asked)
		sigsuspend(&wait);
	CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
}

void fail(const char *format, ...)
{
	char text[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	say(text);
	if (getpid() != 1) {
		/* The first process must not wait for ever for a child's word. */
		kill(1, SIGUSR2);
	}
	_exit(1);
}

static void on_failure(int signal)
{
	(void)signal;
	_exit(1);
}

void fill(void *at, size_t length, uint32_t seed)
{
	uint32_t x = seed * 2654435761u + 1;
	unsigned char *p = at;
	for (size_t i = 0; i < length; i++) {
		x = x * 1664525u + 1013904223u;
		p[i] = x >> 24;
	}
}

int filled(const void *at, size_t length, uint32_t seed)
{
	uint32_t x = seed * 2654435761u + 1;
	const unsigned char *p = at;
	for (size_t i = 0; i < length; i++) {
		x = x * 1664525u + 1013904223u;
		if (p[i] != x >> 24)
			return 0;
	}
	return 1;
}

int child_exits(pid_t pid)
{
	int status;
	pid_t got;
	do
		got = waitpid(pid, &status, 0);
	while (got == -1 && errno == EINTR);
	if (got != pid)
		fail("waitpid(%d): %d, errno %d", pid, got, errno);
	if (!WIFEXITED(status))
		fail("child %d ended with status %#x", pid, status);
	return WEXITSTATUS(status);
}

struct board *board_new(void)
{
	return SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

void board_post(struct board *b, int n)
{
	__atomic_add_fetch(&b->stage[n], 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &b->stage[n], FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void board_await(struct board *b, int n, int value)
{
	for (;;) {
		int now = __atomic_load_n(&b->stage[n], __ATOMIC_SEQ_CST);
		if (now >= value)
			return;
		syscall(SYS_futex, &b->stage[n], FUTEX_WAIT, now, NULL, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (struct program *p = programs; p; p = p->next)
			printf("%s\t%d\t%s\t%s\n", p->name, p->needs, p->refused ? p->refused : "", p->about);
		return 0;
	}
	for (struct program *p = programs; argc == 2 && p; p = p->next) {
		if (strcmp(p->name, argv[1]) != 0)
			continue;
		struct sigaction ask = {.sa_handler = on_ask, .sa_flags = SA_RESTART}, failure = {.sa_handler = on_failure};
		CHECK(sigaction(SIGUSR1, &ask, NULL) == 0);
		CHECK(sigaction(SIGUSR2, &failure, NULL) == 0);
		p->run();
		say("good");
		return 0;
	}
	fprintf(stderr, "usage: %s --list | PROGRAM\n", argv[0]);
	return 2;
}
