/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Threads that have not all in common with their process: a descriptor table, a working
 * directory, or both are their own, alone or with other threads.
 */
#include "programs.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

enum { KCMP_FILES = 2, KCMP_FS = 3 };

static int same(pid_t a, pid_t b, int what) { return SYS(syscall(SYS_kcmp, a, b, what, 0, 0)) == 0; }

static struct board *meeting;

static pthread_t start(void *(*run)(void *), void *argument)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, run, argument) == 0);
	return thread;
}

/* expect reads exactly that. */
static void expect(int fd, const char *text)
{
	char got[64];
	ssize_t n = read(fd, got, sizeof got);
	CHECK(n == (ssize_t)strlen(text) && !memcmp(got, text, n));
}

static void put(int fd, const char *text) { CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text)); }

/* moves puts a descriptor where it is wanted. */
static void moves(int from, int to)
{
	CHECK(dup2(from, to) == to);
	if (from != to)
		close(from);
}

static int closed(int fd) { return fcntl(fd, F_GETFD) == -1 && errno == EBADF; }

/* What the process and its thread have in common or not: numbers, in both tables. */
enum {
	FILE_ = 50,   /* a file; the thread has the pipe's reading end there */
	MARKED = 51,  /* the file; close-on-exec in the process alone */
	WRITES = 52,  /* the pipe's writing end, which the thread has closed */
	SPEAKS = 53,  /* one end of a pair, the process's; the thread has closed it */
	HEARS = 54,   /* the other, the thread's */
	LATER = 60,   /* the process's memfd, opened afterwards; the thread's socket */
	EVENT = 61,   /* here and below: the thread's alone, or others in the process */
	POLL = 62,
	TIMER = 63,
	WATCH = 64,
	SELF = 65,
	NOTE = 66,
	ENDS = 67, /* and 68 */
	HIGH = 900,
};

static pid_t own_tid;

/* polled looks at what the thread's epoll instance reports: it watches the pipe under
 * number 50 and the socket of its own under 60. */
static void polled(uint64_t a, uint64_t b)
{
	struct epoll_event e[4];
	int n = epoll_wait(POLL, e, 4, 0);
	CHECK(n == (a != 0) + (b != 0));
	uint64_t got = 0;
	for (int i = 0; i < n; i++)
		got |= e[i].data.u64;
	CHECK(got == (a | b));
}

static void opens_own(void)
{
	int pair[2];
	CHECK(unshare(CLONE_FILES) == 0);
	CHECK(dup2(FILE_, HIGH) == HIGH);
	moves(HEARS + 1, FILE_); /* the pipe's reading end */
	CHECK(fcntl(MARKED, F_SETFD, 0) == 0);
	close(WRITES);
	close(SPEAKS);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	moves(pair[0], LATER);
	moves(pair[1], ENDS);
	put(LATER, "queued");
	moves(SYS(eventfd(7, 0)), EVENT);
	moves(SYS(epoll_create1(EPOLL_CLOEXEC)), POLL);
	moves(SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)), TIMER);
	struct itimerspec soon = {.it_value = {0, 1000000}};
	CHECK(timerfd_settime(TIMER, 0, &soon, NULL) == 0);
	moves(SYS(inotify_init1(0)), WATCH);
	CHECK(inotify_add_watch(WATCH, "/tmp", IN_CREATE) == 1);
	moves(SYS(syscall(SYS_pidfd_open, getpid(), 0)), SELF);
	moves(SYS(memfd_create("note", 0)), NOTE);
	put(NOTE, "noted");
	CHECK(fcntl(NOTE, F_SETFD, FD_CLOEXEC) == 0);
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 1};
	CHECK(epoll_ctl(POLL, EPOLL_CTL_ADD, FILE_, &e) == 0);
	e.data.u64 = 2;
	CHECK(epoll_ctl(POLL, EPOLL_CTL_ADD, LATER, &e) == 0);
}

static void verifies_own(void)
{
	polled(1, 0);
	put(ENDS, "answer");
	polled(1, 2);
	expect(FILE_, "into the pipe");
	polled(0, 2);
	expect(LATER, "answer");
	expect(ENDS, "queued");
	expect(HEARS, "spoken");
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 3};
	CHECK(epoll_ctl(POLL, EPOLL_CTL_MOD, FILE_, &e) == 0 && epoll_ctl(POLL, EPOLL_CTL_DEL, LATER, &e) == 0);
	CHECK(fcntl(MARKED, F_GETFD) == 0 && fcntl(NOTE, F_GETFD) == FD_CLOEXEC && fcntl(POLL, F_GETFD) == 0);
	CHECK(closed(WRITES) && closed(SPEAKS) && closed(HEARS + 1) && closed(ENDS + 1));
	CHECK(lseek(HIGH, 0, SEEK_CUR) == 3 && lseek(MARKED, 0, SEEK_CUR) == 3);
	expect(HIGH, "3456789");
	CHECK(fcntl(HIGH, F_SETFL, O_APPEND) == 0);
	uint64_t count;
	CHECK(read(EVENT, &count, 8) == 8 && count == 7);
	CHECK(read(TIMER, &count, 8) == 8 && count == 1);
	close(SYS(open("/tmp/new", O_CREAT | O_EXCL | O_RDWR, 0600)));
	CHECK(unlink("/tmp/new") == 0);
	char event[512];
	ssize_t n = read(WATCH, event, sizeof event);
	CHECK(n > (ssize_t)sizeof(struct inotify_event) && !strcmp(((struct inotify_event *)event)->name, "new"));
	CHECK(syscall(SYS_pidfd_send_signal, SELF, 0, NULL, 0) == 0);
	CHECK(lseek(NOTE, 0, SEEK_SET) == 0);
	expect(NOTE, "noted");
	CHECK(kill(getpid(), 0) == 0 && getppid() == 0);
}

static void *has_own(void *unused)
{
	own_tid = gettid();
	opens_own();
	board_post(meeting, 0);
	board_await(meeting, 1, 1);
	verifies_own();
	return unused;
}

static void common_files(void)
{
	int fds[2];
	unlink("/tmp/apart");
	moves(SYS(open("/tmp/apart", O_CREAT | O_TRUNC | O_RDWR, 0600)), FILE_);
	put(FILE_, "0123456789");
	CHECK(lseek(FILE_, 0, SEEK_SET) == 0);
	CHECK(dup3(FILE_, MARKED, O_CLOEXEC) == MARKED);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0);
	moves(fds[0], SPEAKS);
	moves(fds[1], HEARS);
	CHECK(pipe(fds) == 0);
	moves(fds[0], HEARS + 1);
	moves(fds[1], WRITES);
}

PROGRAM(threads_files_own, ANYONE, "a thread with a descriptor table of its own, with all kinds of files in it")
{
	meeting = board_new();
	common_files();
	pthread_t thread = start(has_own, NULL);
	board_await(meeting, 0, 1);
	moves(SYS(memfd_create("later", 0)), LATER);
	put(LATER, "later");
	close(HEARS + 1); /* only the thread can read from the pipe */
	put(WRITES, "into the pipe");
	CHECK(lseek(FILE_, 3, SEEK_SET) == 3);
	ready();
	CHECK(!same(getpid(), own_tid, KCMP_FILES) && same(getpid(), own_tid, KCMP_FS));
	CHECK(fcntl(MARKED, F_GETFD) == FD_CLOEXEC && fcntl(LATER, F_GETFD) == 0);
	CHECK(closed(HEARS + 1) && closed(HIGH));
	for (int fd = EVENT; fd <= ENDS + 1; fd++)
		CHECK(closed(fd));
	CHECK(lseek(LATER, 0, SEEK_SET) == 0);
	expect(LATER, "later");
	put(SPEAKS, "spoken");
	board_post(meeting, 1);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(fcntl(FILE_, F_GETFL) & O_APPEND && lseek(FILE_, 0, SEEK_CUR) == 10);
	/* With the thread its table has gone, and with that the only one who could read. */
	signal(SIGPIPE, SIG_IGN);
	struct pollfd gone = {.fd = WRITES};
	CHECK(poll(&gone, 1, -1) == 1 && gone.revents == POLLERR);
	CHECK(write(WRITES, "x", 1) == -1 && errno == EPIPE);
}

/* Threads in groups. Each has directories and a table by these letters, and makes those
 * that name it. */
static struct member {
	int maker, leaves;
	char directories, table;
	pid_t tid;
} members[] = {
	{-1, 0, 'a', 'a', 0},
	{0, CLONE_FILES, 'a', 'b', 0},
	{1, 0, 'a', 'b', 0},
	{0, CLONE_FS, 'b', 'a', 0},
	{3, CLONE_FILES, 'b', 'c', 0},
	{4, 0, 'b', 'c', 0},
	{5, CLONE_FS, 'c', 'c', 0},
	{0, 0, 'a', 'a', 0},
	{0, CLONE_FS | CLONE_FILES, 'd', 'd', 0},
	{8, 0, 'd', 'd', 0},
	{6, CLONE_FILES, 'c', 'e', 0},
};
enum { MEMBERS = sizeof members / sizeof members[0] };

static void *has_groups(void *argument);

/* members_of makes the threads that this one makes. */
static void members_of(struct member *m)
{
	for (int i = 1; i < MEMBERS; i++)
		if (members[i].maker == m - members)
			start(has_groups, &members[i]);
}

/* as_before compares each thread with each. */
static void as_before(void)
{
	for (int i = 0; i < MEMBERS; i++)
		for (int j = 0; j < i; j++) {
			struct member *a = &members[i], *b = &members[j];
			CHECK(same(a->tid, b->tid, KCMP_FILES) == (a->table == b->table));
			CHECK(same(a->tid, b->tid, KCMP_FS) == (a->directories == b->directories));
		}
}

/* umask_of asks without changing it: others have the same. */
static unsigned umask_of(pid_t tid)
{
	char path[64], text[512] = {0};
	snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
	int fd = SYS(open(path, O_RDONLY));
	CHECK(read(fd, text, sizeof text - 1) > 0);
	close(fd);
	return strtoul(strstr(text, "Umask:") + 6, NULL, 8);
}

/* looks verifies what a thread has of what another one of its group has done. */
static void looks(struct member *m)
{
	char cwd[64], want[64];
	snprintf(want, sizeof want, "/tmp/%c", m->directories);
	CHECK(getcwd(cwd, sizeof cwd) && !strcmp(cwd, want));
	CHECK(umask_of(m->tid) == (unsigned)(m->directories & 7));
	for (char c = 'a'; c <= 'e'; c++)
		CHECK(closed(100 + c) == (c != m->table));
}

/* enters has the thread change what its group has. */
static void enters(char to)
{
	char path[64];
	snprintf(path, sizeof path, "/tmp/%c", to);
	CHECK((mkdir(path, 0777) == 0 || errno == EEXIST) && chdir(path) == 0);
	umask(to & 7);
}

static int first_of(struct member *m, char directories)
{
	for (int i = 0; i < m - members; i++)
		if (directories ? members[i].directories == m->directories : members[i].table == m->table)
			return 0;
	return 1;
}

static void begins_group(struct member *m)
{
	m->tid = gettid();
	if (m->leaves)
		CHECK(unshare(m->leaves) == 0);
	members_of(m);
	board_post(meeting, 1);
	if (m->leaves)
		board_await(meeting, 2, 1); /* no other thread copies what this one has any more */
	if (first_of(m, 1))
		enters(m->directories);
	if (first_of(m, 0))
		CHECK(dup2(2, 100 + m->table) == 100 + m->table);
}

static void *has_groups(void *argument)
{
	struct member *m = argument;
	begins_group(m);
	board_post(meeting, 0);
	board_await(meeting, 3, 1);
	looks(m);
	board_post(meeting, 4);
	board_await(meeting, 5, 1);
	if (!first_of(m, 0) && m->table != 'a')
		CHECK(dup2(2, 200 + m->table) >= 0);
	board_post(meeting, 6);
	board_await(meeting, 7, 1);
	for (char c = 'a'; c <= 'e'; c++) /* only these have a second member */
		CHECK(closed(200 + c) == !(c == m->table && strchr("bcd", c)));
	board_post(meeting, 8);
	return NULL;
}

PROGRAM(threads_files_groups, ANYONE, "threads that have descriptor tables and directories in common in groups")
{
	meeting = board_new();
	members[0].tid = gettid();
	members_of(&members[0]);
	board_await(meeting, 1, MEMBERS - 1); /* all are made */
	enters('a');
	CHECK(dup2(2, 100 + 'a') == 100 + 'a');
	board_post(meeting, 2);
	board_await(meeting, 0, MEMBERS - 1);
	as_before();
	ready();
	as_before();
	looks(&members[0]);
	board_post(meeting, 3);
	board_await(meeting, 4, MEMBERS - 1);
	board_post(meeting, 5);
	board_await(meeting, 6, MEMBERS - 1);
	as_before();
	board_post(meeting, 7);
	board_await(meeting, 8, MEMBERS - 1);
	for (char c = 'a'; c <= 'e'; c++)
		CHECK(closed(200 + c));
}

/* Locks of fcntl(2) belong to a table. */
static int held(int fd, int start)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 1};
	CHECK(fcntl(fd, F_GETLK, &l) == 0);
	return l.l_type != F_UNLCK;
}

static void holds(int fd, int start)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 10};
	CHECK(fcntl(fd, F_SETLK, &l) == 0);
}

static void *has_locks(void *unused)
{
	CHECK(unshare(CLONE_FILES) == 0);
	CHECK(held(FILE_, 0));
	moves(FILE_, 70);
	holds(70, 10);
	board_post(meeting, 0);
	board_await(meeting, 1, 1);
	CHECK(held(70, 0) && !held(70, 10) && !held(70, 20));
	board_post(meeting, 2);
	board_await(meeting, 3, 1);
	CHECK(!held(70, 0)); /* the process has closed a descriptor of the file */
	close(70);
	board_post(meeting, 4);
	return unused;
}

/* in_child has somebody without any lock look. */
static void in_child(int first, int second)
{
	pid_t pid = SYS(fork());
	if (pid == 0)
		_exit(held(FILE_, 0) != first || held(FILE_, 19) != second || held(FILE_, 20));
	CHECK(child_exits(pid) == 0);
}

PROGRAM(threads_files_locks, ANYONE, "POSIX locks of a process, and of a thread with a table of its own")
{
	meeting = board_new();
	common_files();
	holds(FILE_, 0);
	pthread_t thread = start(has_locks, NULL);
	board_await(meeting, 0, 1);
	ready();
	CHECK(!held(FILE_, 0) && held(FILE_, 10) && held(FILE_, 19) && !held(FILE_, 20));
	in_child(1, 1);
	board_post(meeting, 1);
	board_await(meeting, 2, 1);
	close(MARKED); /* the file's, too: that ends the process's locks */
	in_child(0, 1);
	board_post(meeting, 3);
	board_await(meeting, 4, 1);
	in_child(0, 0);
	CHECK(pthread_join(thread, NULL) == 0);
}

/* Processes with a table and directories in common, each with a thread that has its own. */
static void *stands_apart(void *number)
{
	int n = (long)number;
	CHECK(unshare(CLONE_FILES | CLONE_FS) == 0);
	CHECK(chdir(n ? "/proc" : "/dev") == 0);
	moves(SYS(eventfd(n + 1, 0)), 120);
	CHECK(fcntl(121, F_GETFD) == 0); /* the table as it was */
	close(121);
	board_post(meeting, 0);
	board_await(meeting, 1, 1);
	uint64_t count;
	char cwd[64];
	CHECK(read(120, &count, 8) == 8 && count == (uint64_t)n + 1);
	CHECK(closed(121) && closed(122));
	CHECK(getcwd(cwd, sizeof cwd) && !strcmp(cwd, n ? "/proc" : "/dev"));
	return NULL;
}

PROGRAM(threads_files_lodgers, ANYONE, "two processes with one table and one directory, and threads of both with their own")
{
	meeting = board_new();
	CHECK(dup2(2, 121) == 121 && chdir("/tmp") == 0);
	pid_t child = SYS(syscall(SYS_clone, CLONE_FILES | CLONE_FS | SIGCHLD, 0, 0, 0, 0));
	if (child == 0) {
		pthread_t its = start(stands_apart, (void *)1);
		board_await(meeting, 1, 1);
		CHECK(pthread_join(its, NULL) == 0);
		char cwd[64];
		CHECK(getcwd(cwd, sizeof cwd) && !strcmp(cwd, "/tmp"));
		CHECK(dup2(2, 122) == 122 && closed(120) && chdir("/") == 0);
		_exit(0);
	}
	pthread_t ours = start(stands_apart, NULL);
	board_await(meeting, 0, 2);
	ready();
	CHECK(closed(120) && closed(122) && fcntl(121, F_GETFD) == 0);
	CHECK(same(getpid(), child, KCMP_FILES) && same(getpid(), child, KCMP_FS));
	board_post(meeting, 1);
	CHECK(pthread_join(ours, NULL) == 0);
	CHECK(child_exits(child) == 0);
	char cwd[64];
	CHECK(fcntl(122, F_GETFD) == 0 && getcwd(cwd, sizeof cwd) && !strcmp(cwd, "/"));
}

/* A process whose first thread has ended: what the others have in common is one's. */
static void *survives(void *number)
{
	int n = (long)number;
	if (n == 0) {
		start(survives, (void *)1);
		board_await(meeting, 0, 1);
		CHECK(dup2(2, 130) == 130); /* behind the other's back */
	} else {
		CHECK(unshare(CLONE_FILES) == 0);
		CHECK(dup2(2, 131) == 131);
	}
	board_post(meeting, 0);
	board_await(meeting, 1, 1);
	CHECK(closed(130) == n && closed(131) == !n);
	board_post(meeting, 2);
	if (n == 0) {
		board_await(meeting, 2, 2);
		_exit(7);
	}
	return NULL;
}

PROGRAM(threads_files_dead_leader, ANYONE, "a process whose first thread has ended, and of two others one has its own table")
{
	meeting = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		start(survives, NULL);
		syscall(SYS_exit, 0);
	}
	board_await(meeting, 0, 2);
	ready();
	board_post(meeting, 1);
	CHECK(child_exits(child) == 7);
}

/* Of what a thread has of its own, another process has the same. */
static void *has_stranger(void *what)
{
	long flag = (long)what;
	CHECK(unshare(flag) == 0);
	pid_t child = SYS(syscall(SYS_clone, flag | SIGCHLD, 0, 0, 0, 0));
	if (child == 0) {
		board_await(meeting, 1, 1);
		_exit(0);
	}
	board_post(meeting, 0);
	board_await(meeting, 1, 1);
	CHECK(child_exits(child) == 0);
	return NULL;
}

static void strange(long flag)
{
	meeting = board_new();
	pthread_t thread = start(has_stranger, (void *)flag);
	board_await(meeting, 0, 1);
	ready();
	board_post(meeting, 1);
	CHECK(pthread_join(thread, NULL) == 0);
}

REFUSED(refused_table_of_a_thread, ANYONE, "it shares its descriptor table with process", "a process that has the descriptors of one thread of another") { strange(CLONE_FILES); }
REFUSED(refused_directory_of_a_thread, ANYONE, "it shares its working directory with process", "a process that has the directory of one thread of another") { strange(CLONE_FS); }
