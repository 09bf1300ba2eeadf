/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>

/* denies makes a call answer with action; others are allowed. */
static int denies(int nr, uint32_t action, int flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {sizeof code / sizeof *code, code};
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
}

static void restrict_self(void) { CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0); }

/* answers: a call with bad arguments fails with this error. */
static int answers(int nr, int error)
{
	errno = 0;
	return syscall(nr, -1, -1, -1, -1, -1, -1) == -1 && errno == error;
}

static int filters_of(int tid)
{
	char path[64], line[256];
	snprintf(path, sizeof path, "/proc/%d/status", tid);
	FILE *f = fopen(path, "re");
	int n = -1;
	while (f && fgets(line, sizeof line, f))
		sscanf(line, "Seccomp_filters: %d", &n);
	if (f)
		fclose(f);
	return n;
}

PROGRAM(seccomp_filters, ANYONE, "three filters, of which the newest decides what the others allow")
{
	restrict_self();
	int before = filters_of(getpid());
	CHECK(denies(SYS_chroot, SECCOMP_RET_ERRNO | 100, 0) == 0);
	CHECK(denies(SYS_sync_file_range, SECCOMP_RET_ERRNO | 101, SECCOMP_FILTER_FLAG_LOG) == 0);
	CHECK(denies(SYS_chroot, SECCOMP_RET_ERRNO | 102, 0) == 0);
	ready();
	CHECK(filters_of(getpid()) == before + 3);
	/* Of equal actions the newest filter's value counts. */
	CHECK(answers(SYS_chroot, 102));
	CHECK(answers(SYS_sync_file_range, 101));
	CHECK(denies(SYS_chroot, SECCOMP_RET_ERRNO | 103, 0) == 0);
	CHECK(answers(SYS_chroot, 103));
}

PROGRAM(seccomp_kill, ANYONE, "a filter that kills for what the program does not do: all but a dozen calls")
{
	static const int allowed[] = {
		SYS_read, SYS_write, SYS_rt_sigsuspend, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_exit_group, SYS_gettid, SYS_getpid, SYS_fork, SYS_clone,
		SYS_set_robust_list, SYS_wait4, SYS_prctl, SYS_brk,
	};
	enum { N = sizeof allowed / sizeof *allowed };
	struct sock_filter code[N + 3] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
	for (int i = 0; i < N; i++)
		code[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], N - i, 0);
	code[N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[N + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog filter = {N + 3, code};
	restrict_self();
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0);
	ready();
	pid_t child = SYS(fork());
	if (child == 0) {
		syscall(SYS_getppid);
		_exit(0);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static struct board *stage;

/* Threads 0 and 1 have a filter of their own each, 2 and 3 have none. */
static void *filtered_thread(void *number)
{
	long n = (long)number;
	if (n < 2)
		CHECK(denies(SYS_sync_file_range, SECCOMP_RET_ERRNO | (110 + n), 0) == 0);
	board_post(stage, 0);
	board_await(stage, 1, 1);
	CHECK(answers(SYS_chroot, 100));
	CHECK(answers(SYS_sync_file_range, n < 2 ? 110 + n : EBADF));
	board_post(stage, 2);
	board_await(stage, 3, 1);
	return NULL;
}

PROGRAM(seccomp_threads, ANYONE, "threads with filters of their own above those that all have")
{
	pthread_t threads[4];
	stage = board_new();
	restrict_self();
	CHECK(denies(SYS_chroot, SECCOMP_RET_ERRNO | 100, 0) == 0);
	for (long i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, filtered_thread, (void *)i) == 0);
	board_await(stage, 0, 4);
	ready();
	board_post(stage, 1);
	board_await(stage, 2, 4);
	CHECK(answers(SYS_sync_file_range, EBADF));
	/* A thread with another filter stands in the way of giving all the same. */
	CHECK(denies(SYS_sync_file_range, SECCOMP_RET_ERRNO | 99, SECCOMP_FILTER_FLAG_TSYNC) > 0);
	board_post(stage, 3);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

static void *plain_thread(void *unused)
{
	board_post(stage, 0);
	board_await(stage, 1, 1);
	CHECK(answers(SYS_chroot, 105));
	board_post(stage, 2);
	return unused;
}

PROGRAM(seccomp_common, ANYONE, "threads that have one and the same filters can be given another together (TSYNC)")
{
	pthread_t threads[8];
	stage = board_new();
	restrict_self();
	CHECK(denies(SYS_chroot, SECCOMP_RET_ERRNO | 100, 0) == 0);
	for (int i = 0; i < 8; i++)
		CHECK(pthread_create(&threads[i], NULL, plain_thread, NULL) == 0);
	board_await(stage, 0, 8);
	CHECK(denies(SYS_chroot, SECCOMP_RET_ERRNO | 101, SECCOMP_FILTER_FLAG_TSYNC) == 0);
	ready();
	CHECK(denies(SYS_chroot, SECCOMP_RET_ERRNO | 105, SECCOMP_FILTER_FLAG_TSYNC) == 0);
	board_post(stage, 1);
	for (int i = 0; i < 8; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

PROGRAM(seccomp_children, ANYONE, "a child with fewer filters than its parent, and one with more")
{
	stage = board_new();
	pid_t fewer = SYS(fork());
	if (fewer == 0) {
		board_post(stage, 0);
		board_await(stage, 1, 1);
		CHECK(answers(SYS_sync_file_range, EBADF));
		_exit(0);
	}
	restrict_self();
	CHECK(denies(SYS_sync_file_range, SECCOMP_RET_ERRNO | 100, 0) == 0);
	pid_t more = SYS(fork());
	if (more == 0) {
		CHECK(denies(SYS_sync_file_range, SECCOMP_RET_ERRNO | 101, 0) == 0);
		board_post(stage, 0);
		board_await(stage, 1, 1);
		CHECK(answers(SYS_sync_file_range, 101));
		_exit(0);
	}
	board_await(stage, 0, 2);
	ready();
	board_post(stage, 1);
	CHECK(answers(SYS_sync_file_range, 100));
	CHECK(child_exits(fewer) == 0 && child_exits(more) == 0);
}

static int question[2], survivor_answer[2];

/* It may do next to nothing, and not even end as its first thread has. */
static void *filtered_survivor(void *unused)
{
	char c;
	board_await(stage, 0, 1);
	char path[64], line[64] = {0};
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
	while (!strstr(line, ") Z ")) {
		int fd = SYS(open(path, O_RDONLY | O_CLOEXEC));
		CHECK(read(fd, line, sizeof line - 1) > 0);
		close(fd);
	}
	CHECK(denies(SYS_exit, SECCOMP_RET_KILL_PROCESS, 0) == 0);
	CHECK(denies(SYS_chroot, SECCOMP_RET_ERRNO | 100, 0) == 0);
	board_post(stage, 1);
	while (read(question[0], &c, 1) == 1) {
		CHECK(answers(SYS_chroot, 100));
		CHECK(write(survivor_answer[1], &c, 1) == 1);
	}
	_exit(3);
	return unused;
}

PROGRAM(seccomp_dead_leader, ANYONE, "filters of a thread whose process has lost its first one, which forbid to end so")
{
	char c;
	stage = board_new();
	restrict_self();
	CHECK(pipe(question) == 0 && pipe(survivor_answer) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		pthread_t thread;
		close(question[1]);
		CHECK(pthread_create(&thread, NULL, filtered_survivor, NULL) == 0);
		board_post(stage, 0);
		syscall(SYS_exit, 0);
	}
	board_await(stage, 1, 1);
	ready();
	CHECK(write(question[1], "a", 1) == 1 && read(survivor_answer[0], &c, 1) == 1 && c == 'a');
	close(question[1]);
	CHECK(child_exits(child) == 3);
}

/* A thread in strict mode can read, write and end. */
static int answer[2];

static void *strict_thread(void *unused)
{
	char c;
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
	while (syscall(SYS_read, question[0], &c, 1) == 1 && syscall(SYS_write, answer[1], &c, 1) == 1)
		if (c == 'q')
			syscall(SYS_exit, 0);
	return unused;
}

PROGRAM(seccomp_strict, ANYONE, "a thread in strict mode")
{
	char c;
	CHECK(pipe(question) == 0 && pipe(answer) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		/* It ends as a thread by exit(2): its process with it. */
		strict_thread(NULL);
		_exit(1);
	}
	CHECK(write(question[1], "a", 1) == 1 && read(answer[0], &c, 1) == 1);
	ready();
	CHECK(write(question[1], "b", 1) == 1 && read(answer[0], &c, 1) == 1 && c == 'b');
	CHECK(write(question[1], "q", 1) == 1 && read(answer[0], &c, 1) == 1 && c == 'q');
	CHECK(child_exits(child) == 0);
	/* Another one is killed for anything else. */
	child = SYS(fork());
	if (child == 0) {
		CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
		syscall(SYS_getppid);
		syscall(SYS_exit, 0);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
}

REFUSED(seccomp_listener, ANYONE, "listener", "a filter that asks a process outside, whose descriptor is closed")
{
	restrict_self();
	int fd = SYS(denies(SYS_chroot, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER));
	close(fd);
	ready();
	CHECK(answers(SYS_chroot, ENOSYS));
}
