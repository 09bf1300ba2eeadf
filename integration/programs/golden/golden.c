/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The program in the golden images of whole containers: see golden_test.go. It has
 * no libc and removes its own file, so that an image of it holds all of it, is
 * small, and says nothing of the machine's libraries. It builds the state that its
 * argument names, says "ready", and verifies it when SIGUSR1 comes.
 *
 * An image is of one text of this file: who changes it makes all images anew, which
 * then prove nothing about those of earlier versions. So add a program, and its
 * image, rather than change one.
 */
#include <asm/unistd.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/signal.h>
#include <linux/fcntl.h>

static long call(long n, long a, long b, long c, long d)
{
	long out;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(out) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return out;
}
#define CALL4(n, a, b, c, d) call(__NR_##n, (long)(a), (long)(b), (long)(c), (long)(d))
#define CALL(n, a, b, c) CALL4(n, a, b, c, 0)

static long length(const char *s)
{
	long n = 0;
	while (s[n])
		n++;
	return n;
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static __attribute__((noreturn)) void end(const char *word, int status)
{
	CALL(write, 1, word, length(word));
	for (;;)
		CALL(exit_group, status, 0, 0);
}

/* CHECK says the condition that does not hold, and ends the process: the first one's
 * end is the container's, and it finds that another one has ended. */
#define CHECK(condition)                                   \
	do {                                               \
		if (!(condition))                          \
			end("not so: " #condition "\n", 1); \
	} while (0)

/* A rendezvous of tasks with one memory. */
static void await(volatile int *word, int value)
{
	int is;
	while ((is = *word) != value)
		CALL4(futex, word, FUTEX_WAIT, is, 0);
}

static void post(volatile int *word, int value)
{
	*word = value;
	CALL(futex, word, FUTEX_WAKE, 1 << 20);
}

/* make is clone(2) with a stack of its own; run ends the task. */
static char stacks[4][2048] __attribute__((aligned(16)));

static long make(void (*run)(void), long flags, int stack)
{
	void **top = (void **)(stacks[stack] + sizeof stacks[stack]);
	long out;
	*--top = 0;
	*--top = (void *)run;
	register long r10 __asm__("r10") = 0, r8 __asm__("r8") = 0;
	__asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\tpop %%rax\n\tcall *%%rax\n\tud2\n1:"
			 : "=a"(out) : "a"(__NR_clone), "D"(flags), "S"(top), "d"(0), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	CHECK(out > 0);
	return out;
}

static void ready(void)
{
	unsigned long ask = 1UL << (SIGUSR1 - 1);
	CHECK(CALL(unlink, "/victim", 0, 0) == 0);
	CALL(write, 1, "ready\n", 6);
	while (CALL4(rt_sigtimedwait, &ask, 0, 0, 8) != SIGUSR1)
		;
}

static int holds(int fd, const char *text)
{
	char is[16] = {0};
	return CALL4(pread64, fd, is, sizeof is - 1, 0) == length(text) && same(is, text);
}

static int stands_in(const char *directory)
{
	char is[64];
	return CALL(getcwd, is, sizeof is, 0) > 0 && same(is, directory);
}

/* A file without a name, under a number. */
static void has(int fd, const char *text)
{
	int made = CALL(memfd_create, "golden", 0, 0);
	CHECK(made >= 0 && CALL(write, made, text, length(text)) == length(text));
	if (made != fd) {
		CHECK(CALL(dup2, made, fd, 0) == fd);
		CALL(close, made, 0, 0);
	}
}

/*
 * "sharing": the first process has all in common with a child, memory and
 * directories with a second, directories and descriptors with a third.
 */
static volatile int begun, answered[4];
static long children[4];

static void has_all(void)
{
	await(&begun, 1);
	CHECK(holds(30, "common"));
	CHECK(CALL(dup2, 30, 31, 0) == 31);
	CHECK(CALL(chdir, "/proc", 0, 0) == 0);
	post(&answered[1], 1);
	await(&begun, 9);
}

static void has_memory(void)
{
	CHECK(CALL(close, 30, 0, 0) == 0); /* of its own table */
	has(30, "second's");
	post(&answered[2], 1);
	await(&begun, 1);
	await(&answered[1], 1);
	CHECK(holds(30, "second's"));
	CHECK(CALL(fcntl, 31, F_GETFD, 0) < 0);
	CHECK(stands_in("/proc"));
	CHECK(CALL(umask, 027, 0, 0) == 077);
	post(&answered[2], 2);
	await(&begun, 9);
}

/* It has a memory of its own, so it is told by a pipe. */
static void has_files(void)
{
	char c = 0;
	CHECK(CALL(read, 40, &c, 1) == 1 && c == 'g');
	CHECK(begun == 0); /* as it was when it was made */
	CHECK(holds(31, "common"));
	CHECK(stands_in("/proc"));
	CHECK(CALL(umask, 022, 0, 0) == 027);
	has(32, "third's");
	CALL(exit_group, 7, 0, 0);
}

static void sharing(void)
{
	int ends[2], status = 0;
	CHECK(CALL(pipe, ends, 0, 0) == 0);
	CHECK(CALL(dup2, ends[0], 40, 0) == 40 && CALL(dup2, ends[1], 41, 0) == 41);
	CALL(close, ends[0], 0, 0);
	CALL(close, ends[1], 0, 0);
	has(30, "common");
	CHECK(CALL(chdir, "/tmp", 0, 0) == 0);
	CALL(umask, 077, 0, 0);
	children[3] = make(has_files, CLONE_FS | CLONE_FILES | SIGCHLD, 3);
	children[1] = make(has_all, CLONE_VM | CLONE_SIGHAND | CLONE_FS | CLONE_FILES | SIGCHLD, 1);
	children[2] = make(has_memory, CLONE_VM | CLONE_FS | SIGCHLD, 2);
	await(&answered[2], 1);
	ready();
	CHECK(stands_in("/tmp"));
	CHECK(holds(30, "common"));
	post(&begun, 1);
	await(&answered[2], 2);
	CHECK(CALL(write, 41, "g", 1) == 1);
	CHECK(CALL4(wait4, children[3], &status, 0, 0) == children[3] && status == 7 << 8);
	CHECK(holds(32, "third's"));
	CHECK(CALL(umask, 0, 0, 0) == 022);
	CHECK(CALL4(kcmp, children[1], 1, 4 /* KCMP_SIGHAND */, 0) == 0);
	CHECK(CALL4(kcmp, children[2], 1, 4, 0) > 0);
}

/*
 * "threads": one has a table and directories of its own, another one that table
 * and directories of its own.
 */
static void has_table(void)
{
	CHECK(holds(50, "of threads"));
	CHECK(stands_in("/proc"));
	CHECK(CALL(chdir, "/sys", 0, 0) == 0);
	CALL(umask, 007, 0, 0);
	post(&answered[2], 1);
	await(&begun, 1);
	CHECK(holds(50, "of threads"));
	CHECK(CALL(fcntl, 51, F_GETFD, 0) < 0);
	CHECK(CALL(umask, 0, 0, 0) == 007);
	CHECK(stands_in("/sys"));
	has(52, "second's");
	post(&answered[2], 2);
	await(&begun, 9);
}

static void has_both(void)
{
	CHECK(CALL(unshare, CLONE_FILES | CLONE_FS, 0, 0) == 0);
	CHECK(CALL(close, 51, 0, 0) == 0);
	has(50, "of threads");
	CHECK(CALL(chdir, "/proc", 0, 0) == 0);
	CALL(umask, 027, 0, 0);
	make(has_table, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_FILES, 2);
	await(&answered[2], 1);
	post(&answered[1], 1);
	await(&begun, 1);
	await(&answered[2], 2);
	CHECK(holds(50, "of threads") && holds(52, "second's"));
	CHECK(stands_in("/proc"));
	CHECK(CALL(umask, 0, 0, 0) == 027);
	post(&answered[1], 2);
	await(&begun, 9);
}

static void threads(void)
{
	has(51, "first's");
	CALL(umask, 077, 0, 0);
	make(has_both, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_FILES | CLONE_FS, 1);
	await(&answered[1], 1);
	ready();
	CHECK(stands_in("/tmp"));
	CHECK(holds(51, "first's"));
	CHECK(CALL(fcntl, 50, F_GETFD, 0) < 0);
	CHECK(CALL(umask, 0, 0, 0) == 077);
	post(&begun, 1);
	await(&answered[1], 2);
	CHECK(CALL(fcntl, 52, F_GETFD, 0) < 0);
}

/* "cgroups": two below the container's own, one in the other, with a child. */
#define AT "/sys/fs/cgroup/pids/"

static void put(const char *path, const char *text)
{
	int fd = CALL(open, path, O_WRONLY, 0);
	CHECK(fd >= 0 && CALL(write, fd, text, length(text)) == length(text));
	CALL(close, fd, 0, 0);
}

static int says(const char *path, const char *text)
{
	char is[32] = {0};
	int fd = CALL(open, path, O_RDONLY, 0);
	int n = CALL(read, fd, is, sizeof is - 1);
	CALL(close, fd, 0, 0);
	return n == length(text) && same(is, text);
}

static void waits(void)
{
	for (;;)
		CALL(pause, 0, 0, 0);
}

static void cgroups(void)
{
	CHECK(CALL(mkdir, AT "outer", 0750, 0) == 0 && CALL(mkdir, AT "outer/in ner", 0755, 0) == 0);
	char child[4] = {0}; /* its id is below 100: it is among the container's first */
	long id = make(waits, SIGCHLD, 1);
	CHECK(id < 100);
	if (id < 10) {
		child[0] = '0' + id;
	} else {
		child[0] = '0' + id / 10;
		child[1] = '0' + id % 10;
	}
	put(AT "outer/pids.max", "9");
	put(AT "outer/in ner/pids.max", "4");
	put(AT "outer/in ner/cgroup.procs", child);
	ready();
	CHECK(says(AT "outer/pids.max", "9\n"));
	CHECK(says(AT "outer/in ner/pids.max", "4\n"));
	child[length(child)] = '\n';
	CHECK(says(AT "outer/in ner/cgroup.procs", child));
	CHECK(says(AT "outer/cgroup.procs", ""));
	CHECK(says(AT "cgroup.procs", "1\n"));
}

__attribute__((used)) static void begin(long *stack)
{
	char *name = (char *)stack[2];
	unsigned long ask = 1UL << (SIGUSR1 - 1);
	CHECK(stack[0] == 2);
	/* By all tasks: whoever does not would be ended by it. */
	CHECK(CALL4(rt_sigprocmask, SIG_BLOCK, &ask, 0, 8) == 0);
	if (same(name, "sharing"))
		sharing();
	else if (same(name, "threads"))
		threads();
	else if (same(name, "cgroups"))
		cgroups();
	else
		end("no such program\n", 2);
	end("good\n", 0);
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n\tud2\n");
