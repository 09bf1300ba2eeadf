// SPDX-License-Identifier: Apache-2.0
//
// victim MEGABYTES MODE: a process that knows whether it was harmed. It changes
// and verifies its memory, its SSE registers, a pipe and its signals all the
// time, and tells in /beat how often it did, what was wrong, and for how long
// it once could not run. MODE adds state that a checkpoint refuses or
// loses.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262 /* linux/in.h */
#endif

#define PAGE 4096

static unsigned long beats, errors;
static long longest; // microseconds between two beats, the longest since a reset
static volatile sig_atomic_t signals;

static void wrong(const char *what)
{
	int fd = open("/wrong", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	__atomic_add_fetch(&errors, 1, __ATOMIC_SEQ_CST);
	if (fd >= 0) {
		dprintf(fd, "beat %lu: %s\n", beats, what);
		close(fd);
	}
}

static void die(const char *what)
{
	perror(what);
	wrong(what);
	_exit(99);
}

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

// Each page holds its generation and what follows from it.
static void fill(uint64_t *page, uint64_t seed)
{
	for (int i = 0; i < PAGE / 8; i++)
		page[i] = i ? mix(seed + i) : seed;
}

static int whole(const uint64_t *page)
{
	for (int i = 1; i < PAGE / 8; i++)
		if (page[i] != mix(page[0] + i))
			return 0;
	return 1;
}

// The SSE registers are loaded, time passes, and they are still the same.
static void registers(uint64_t seed)
{
	uint64_t in[4] = {seed, mix(seed), ~seed, seed << 1}, out[4];

	asm volatile("movdqu (%0), %%xmm9\n movdqu 16(%0), %%xmm15\n"
		     "mov $2000, %%ecx\n 1: pause\n dec %%ecx\n jnz 1b\n"
		     "movdqu %%xmm9, (%1)\n movdqu %%xmm15, 16(%1)\n"
		     :: "r"(in), "r"(out) : "xmm9", "xmm15", "ecx", "memory", "cc");
	if (memcmp(in, out, sizeof in))
		wrong("an SSE register changed");
}

static void *worker(void *arg)
{
	uint64_t own[PAGE / 8], n = (uintptr_t)arg << 32;

	for (;; n++) {
		fill(own, n);
		registers(n);
		if (!whole(own) || own[0] != n)
			wrong("a thread's stack changed");
		usleep(500);
	}
	return NULL;
}

static void handler(int sig) { (void)sig; signals++; }

static void report(void)
{
	char line[65];
	int fd;

	if (!access("/exit", F_OK))
		_exit(7);
	// A test asks for a new measure by removing the mark.
	if (access("/measure", F_OK) && (fd = open("/measure", O_WRONLY | O_CREAT | O_CLOEXEC, 0644)) >= 0) {
		close(fd);
		longest = 0;
	}
	snprintf(line, sizeof line, "%15lu %10lu %15ld %5d ok           \n", beats, errors, longest, getpid());
	fd = open("/beat", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || pwrite(fd, line, 64, 0) != 64)
		wrong("/beat could not be written");
	if (fd >= 0)
		close(fd);
}

static void io_uring(void)
{
	char params[256] = {0};

	if (syscall(425, 8, params) < 0) // io_uring_setup(2)
		die("io_uring_setup");
}

static void perf(void)
{
	struct perf_event_attr a = {.type = PERF_TYPE_SOFTWARE, .size = sizeof a,
		.config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1, .exclude_hv = 1};

	if (syscall(SYS_perf_event_open, &a, 0, -1, -1, 0) < 0)
		die("perf_event_open");
}

static void keys(void)
{
	for (char name[] = "a"; *name < 'd'; ++*name)
		if (syscall(SYS_add_key, "user", name, "secret", 6, KEY_SPEC_SESSION_KEYRING) < 0)
			die("add_key");
}

static void *apart(void *unused)
{
	(void)unused;
	/* from now on its table is another process's, too, and not its own process's */
	if (unshare(CLONE_FILES) || syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0) < 0)
		die("unshare");
	for (;;)
		pause();
}

static void thread(void)
{
	/* a process with the descriptor table of a thread of another */
	pthread_t t;

	if (pthread_create(&t, NULL, apart, NULL))
		die("pthread_create");
}

static void mptcp(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	int l = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP), c = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);

	/* both ends ask for more than one path */
	if (l < 0 || c < 0 || bind(l, (void *)&a, n) || listen(l, 1) || getsockname(l, (void *)&a, &n) ||
	    connect(c, (void *)&a, n) || accept(l, NULL, NULL) < 0)
		die("an MPTCP connection to ourselves");
}

// A program that never stands still.
static void *forks(void *arg)
{
	(void)arg;
	for (;;) {
		pid_t pid = fork();

		if (pid < 0)
			continue;
		if (!pid)
			_exit(7);
		int status;
		if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 7)
			wrong("a child did not exit with its status");
	}
	return NULL;
}

static void *leaf(void *arg) { return arg; }

static void *threads(void *arg)
{
	for (uintptr_t n = 1;; n++) {
		pthread_t t;
		void *got;

		if (pthread_create(&t, NULL, leaf, (void *)n))
			continue;
		if (pthread_join(t, &got) || got != (void *)n)
			wrong("a thread did not return its value");
	}
	return arg;
}

static void start(void *(*f)(void *), uintptr_t arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, f, (void *)arg))
		die("pthread_create");
}

int main(int argc, char **argv)
{
	size_t pages = argc > 1 ? strtoul(argv[1], NULL, 10) << 8 : 256;
	const char *mode = argc > 2 ? argv[2] : "";
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
	uint64_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int p[2];

	if (memory == MAP_FAILED || pipe2(p, O_CLOEXEC) || sigaction(SIGUSR1, &sa, NULL))
		die("begin");
	for (size_t i = 0; i < pages; i++)
		fill(memory + i * PAGE / 8, i);
	if (!strcmp(mode, "io_uring"))
		io_uring();
	else if (!strcmp(mode, "perf"))
		perf();
	else if (!strcmp(mode, "thread"))
		thread();
	else if (!strcmp(mode, "keys"))
		keys();
	else if (!strcmp(mode, "mptcp"))
		mptcp();
	else if (!strcmp(mode, "forks"))
		start(forks, 0), start(forks, 0);
	else if (!strcmp(mode, "threads"))
		start(threads, 0), start(threads, 0);
	else if (!strcmp(mode, "all"))
		io_uring(), perf(), thread();
	else if (*mode)
		die(mode);
	start(worker, 1);
	start(worker, 2);

	long last = now();
	for (size_t at = 0;; beats++) {
		uint64_t in = mix(beats), out = 0;

		for (int i = 0; i < 16; i++, at = (at + 1) % pages) {
			if (!whole(memory + at * PAGE / 8))
				wrong("a page changed");
			fill(memory + at * PAGE / 8, beats + at);
		}
		registers(beats);
		if (write(p[1], &in, 8) != 8 || read(p[0], &out, 8) != 8 || in != out)
			wrong("the pipe lost something");
		int before = signals;
		if (raise(SIGUSR1) || signals != before + 1)
			wrong("a signal was lost");
		if (beats % 8 == 0)
			report();
		struct timespec ms = {0, 1000000};
		if (clock_nanosleep(CLOCK_MONOTONIC, 0, &ms, NULL))
			wrong("a sleep was interrupted");
		long t = now();
		if (t - last > longest)
			longest = t - last;
		last = t;
	}
}
