/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/eventfd.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/personality.h>

/* state is field n of /proc/PID/stat, from the state on (n = 3), as a number,
 * or the state's letter. */
static long stat_field(pid_t pid, int n)
{
	char path[64], text[1024];
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	int fd = SYS(open(path, O_RDONLY));
	ssize_t length = SYS(read(fd, text, sizeof text - 1));
	close(fd);
	text[length] = 0;
	char *at = strrchr(text, ')') + 2;
	if (n == 3)
		return *at;
	for (int i = 3; i < n; i++)
		at = strchr(at, ' ') + 1;
	return atol(at);
}

static void await_state(pid_t pid, char state)
{
	while (stat_field(pid, 3) != state)
		usleep(1000);
}

PROGRAM(task_ids, ANYONE, "pids, the parent's, the group's and the session's")
{
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		SYS(setsid());
		pid_t grand = SYS(fork());
		if (grand == 0) {
			CHECK(setpgid(0, 0) == 0);
			pid_t me = getpid(), parent = getppid(), session = getsid(0);
			board_post(b, 0);
			board_await(b, 1, 1);
			CHECK(getpid() == me && getppid() == parent && getsid(0) == session && getpgid(0) == me);
			_exit(5);
		}
		board_await(b, 1, 1);
		CHECK(getsid(0) == getpid());
		_exit(child_exits(grand) + 1);
	}
	board_await(b, 0, 1);
	ready();
	board_post(b, 1);
	CHECK(child_exits(child) == 6);
}

PROGRAM(task_deep, ANYONE, "a chain of twelve processes")
{
	struct board *b = board_new();
	pid_t top = getpid();
	int depth;
	pid_t child = 0;
	for (depth = 0; depth < 12; depth++) {
		child = SYS(fork());
		if (child != 0)
			break;
	}
	if (getpid() != top) {
		board_post(b, 0);
		board_await(b, 1, 1);
		_exit(child ? child_exits(child) + 1 : 1);
	}
	board_await(b, 0, 12);
	ready();
	board_post(b, 1);
	CHECK(child_exits(child) == 12);
}

PROGRAM(task_zombies, ANYONE, "zombies keep their exit statuses")
{
	pid_t exited = SYS(fork());
	if (exited == 0)
		_exit(77);
	pid_t killed = SYS(fork());
	if (killed == 0) {
		raise(SIGKILL);
		_exit(0);
	}
	await_state(exited, 'Z');
	await_state(killed, 'Z');
	ready();
	int status;
	CHECK(waitpid(killed, &status, 0) == killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CHECK(child_exits(exited) == 77);
	CHECK(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD);
}

PROGRAM(task_orphan, ANYONE, "an orphan belongs to the first process")
{
	struct board *b = board_new();
	pid_t middle = SYS(fork());
	if (middle == 0) {
		pid_t orphan = SYS(fork());
		if (orphan == 0) {
			while (getppid() != 1)
				usleep(1000);
			board_post(b, 0);
			board_await(b, 1, 1);
			CHECK(getppid() == 1);
			_exit(31);
		}
		b->stage[9] = orphan;
		_exit(0);
	}
	CHECK(child_exits(middle) == 0);
	board_await(b, 0, 1);
	ready();
	board_post(b, 1);
	CHECK(child_exits(b->stage[9]) == 31);
}

PROGRAM(task_subreaper, ANYONE, "orphans below a subreaper belong to it")
{
	struct board *b = board_new();
	pid_t reaper = SYS(fork());
	if (reaper == 0) {
		CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
		pid_t reaper_pid = getpid();
		pid_t middle = SYS(fork());
		if (middle == 0) {
			if (SYS(fork()) == 0) {
				while (getppid() != reaper_pid)
					usleep(1000);
				board_post(b, 0);
				board_await(b, 1, 1);
				_exit(8);
			}
			_exit(0);
		}
		CHECK(child_exits(middle) == 0);
		board_await(b, 1, 1);
		int status, on = 0;
		CHECK(prctl(PR_GET_CHILD_SUBREAPER, &on) == 0 && on == 1);
		CHECK(wait(&status) > 0 && WEXITSTATUS(status) == 8);
		_exit(9);
	}
	board_await(b, 0, 1);
	ready();
	board_post(b, 1);
	CHECK(child_exits(reaper) == 9);
}

PROGRAM(task_dead_leader_of_session, ANYONE, "a session and a group whose leaders are gone")
{
	struct board *b = board_new();
	pid_t leader = SYS(fork());
	if (leader == 0) {
		SYS(setsid());
		if (SYS(fork()) == 0) {
			pid_t session = getsid(0), group = getpgid(0);
			while (getppid() != 1)
				usleep(1000);
			b->stage[9] = getpid();
			board_post(b, 0);
			board_await(b, 1, 1);
			CHECK(getsid(0) == session && getpgid(0) == group && session != getpid());
			_exit(12);
		}
		_exit(0);
	}
	CHECK(child_exits(leader) == 0);
	board_await(b, 0, 1);
	ready();
	board_post(b, 1);
	CHECK(child_exits(b->stage[9]) == 12);
}

PROGRAM(task_pdeathsig, ANYONE, "a child still dies with its parent")
{
	struct board *b = board_new();
	pid_t parent = SYS(fork());
	if (parent == 0) {
		if (SYS(fork()) == 0) {
			CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
			b->stage[9] = getpid();
			board_post(b, 0);
			for (;;)
				pause();
		}
		board_await(b, 1, 1);
		_exit(0);
	}
	board_await(b, 0, 1);
	ready();
	board_post(b, 1);
	CHECK(child_exits(parent) == 0);
	int status;
	CHECK(waitpid(b->stage[9], &status, 0) == b->stage[9] && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

PROGRAM(task_attributes, ANYONE, "name, umask, directory, nice value, policy, affinity, personality")
{
	char name[16];
	cpu_set_t one, now;
	CHECK(prctl(PR_SET_NAME, "mig-attributes") == 0);
	CHECK(mkdir("/tmp/here", 0755) == 0 || errno == EEXIST);
	CHECK(chdir("/tmp/here") == 0);
	umask(0137);
	CHECK(setpriority(PRIO_PROCESS, 0, 7) == 0);
	struct sched_param none = {0};
	CHECK(sched_setscheduler(0, SCHED_BATCH, &none) == 0);
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
	CHECK(personality(ADDR_NO_RANDOMIZE) != -1);
	ready();
	char directory[256];
	CHECK(prctl(PR_GET_NAME, name) == 0 && !strcmp(name, "mig-attributes"));
	CHECK(getcwd(directory, sizeof directory) && !strcmp(directory, "/tmp/here"));
	CHECK(umask(0) == 0137);
	CHECK(getpriority(PRIO_PROCESS, 0) == 7);
	CHECK(sched_getscheduler(0) == SCHED_BATCH);
	CHECK(sched_getaffinity(0, sizeof now, &now) == 0 && CPU_EQUAL(&one, &now));
	CHECK(personality(0xffffffff) == ADDR_NO_RANDOMIZE);
}

PROGRAM(task_limits, ANYONE, "resource limits")
{
	struct rlimit was, is, set = {100, 2000};
	CHECK(setrlimit(RLIMIT_NOFILE, &set) == 0);
	set.rlim_cur = set.rlim_max = 1 << 30;
	CHECK(setrlimit(RLIMIT_FSIZE, &set) == 0);
	set.rlim_cur = 0;
	CHECK(setrlimit(RLIMIT_CORE, &set) == 0 || errno == EPERM);
	CHECK(getrlimit(RLIMIT_CORE, &was) == 0);
	ready();
	CHECK(getrlimit(RLIMIT_NOFILE, &is) == 0 && is.rlim_cur == 100 && is.rlim_max == 2000);
	CHECK(getrlimit(RLIMIT_FSIZE, &is) == 0 && is.rlim_cur == 1 << 30 && is.rlim_max == 1 << 30);
	CHECK(getrlimit(RLIMIT_CORE, &is) == 0 && is.rlim_cur == was.rlim_cur && is.rlim_max == was.rlim_max);
}

PROGRAM(task_prctls, ANYONE, "timer slack, no_new_privs, keepcaps, THP, dumpable")
{
	CHECK(prctl(PR_SET_TIMERSLACK, 123456) == 0);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0);
	ready();
	CHECK(prctl(PR_GET_TIMERSLACK) == 123456);
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
	CHECK(prctl(PR_GET_DUMPABLE) == 0);
}

PROGRAM(task_wait_blocked, ANYONE, "a process that is blocked in waitpid")
{
	struct board *b = board_new();
	pid_t parent = SYS(fork());
	if (parent == 0) {
		pid_t child = SYS(fork());
		if (child == 0) {
			board_post(b, 0);
			board_await(b, 1, 1);
			_exit(21);
		}
		_exit(child_exits(child) + 1);
	}
	board_await(b, 0, 1);
	ready();
	board_post(b, 1);
	CHECK(child_exits(parent) == 22);
}

PROGRAM(task_new_pids, ANYONE, "new processes and threads get numbers that nobody has")
{
	pid_t children[20];
	struct board *b = board_new();
	for (int i = 0; i < 20; i++) {
		children[i] = SYS(fork());
		if (children[i] == 0) {
			board_await(b, 0, 1);
			_exit(i);
		}
	}
	ready();
	pid_t late = SYS(fork());
	if (late == 0)
		_exit(99);
	for (int i = 0; i < 20; i++)
		CHECK(children[i] != late);
	CHECK(child_exits(late) == 99);
	board_post(b, 0);
	for (int i = 0; i < 20; i++)
		CHECK(child_exits(children[i]) == i);
}

/* Threads. */

static struct board *meeting;
static __thread int own_value;

static void *counts(void *argument)
{
	long n = (long)argument;
	own_value = n * 3;
	char name[16];
	snprintf(name, sizeof name, "worker-%ld", n);
	prctl(PR_SET_NAME, name);
	pid_t id = gettid();
	board_post(meeting, 0);
	board_await(meeting, 1, 1);
	char now[16];
	prctl(PR_GET_NAME, now);
	CHECK(gettid() == id && own_value == n * 3 && !strcmp(now, name));
	return (void *)(n + 1);
}

PROGRAM(thread_many, ANYONE, "100 threads with ids, names and memory of their own")
{
	pthread_t threads[100];
	meeting = board_new();
	for (long i = 0; i < 100; i++)
		CHECK(pthread_create(&threads[i], NULL, counts, (void *)i) == 0);
	board_await(meeting, 0, 100);
	ready();
	board_post(meeting, 1);
	for (long i = 0; i < 100; i++) {
		void *value;
		CHECK(pthread_join(threads[i], &value) == 0 && (long)value == i + 1);
	}
	CHECK(pthread_create(&threads[0], NULL, counts, (void *)200l) == 0);
	void *value;
	CHECK(pthread_join(threads[0], &value) == 0 && (long)value == 201);
}

static pthread_mutex_t mutex;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int told;

static void *waits(void *unused)
{
	(void)unused;
	CHECK(pthread_mutex_lock(&mutex) == 0);
	board_post(meeting, 0);
	while (!told)
		CHECK(pthread_cond_wait(&condition, &mutex) == 0);
	CHECK(pthread_mutex_unlock(&mutex) == 0);
	return NULL;
}

PROGRAM(thread_condition, ANYONE, "threads that wait for a condition")
{
	pthread_t threads[8];
	meeting = board_new();
	pthread_mutex_init(&mutex, NULL);
	for (int i = 0; i < 8; i++)
		CHECK(pthread_create(&threads[i], NULL, waits, NULL) == 0);
	board_await(meeting, 0, 8);
	ready();
	CHECK(pthread_mutex_lock(&mutex) == 0);
	told = 1;
	CHECK(pthread_cond_broadcast(&condition) == 0);
	CHECK(pthread_mutex_unlock(&mutex) == 0);
	for (int i = 0; i < 8; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

static void *dies_with_lock(void *unused)
{
	(void)unused;
	CHECK(pthread_mutex_lock(&mutex) == 0);
	board_post(meeting, 0);
	board_await(meeting, 1, 1);
	return NULL; /* without unlocking */
}

PROGRAM(thread_robust, ANYONE, "a robust mutex tells of its owner's death")
{
	pthread_mutexattr_t attributes;
	pthread_t thread;
	meeting = board_new();
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&mutex, &attributes);
	CHECK(pthread_create(&thread, NULL, dies_with_lock, NULL) == 0);
	board_await(meeting, 0, 1);
	ready();
	board_post(meeting, 1);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(pthread_mutex_lock(&mutex) == EOWNERDEAD);
}

PROGRAM(thread_priority_inheritance, ANYONE, "a lock with priority inheritance that is held")
{
	pthread_mutexattr_t attributes;
	pthread_t thread;
	meeting = board_new();
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&mutex, &attributes);
	CHECK(pthread_mutex_lock(&mutex) == 0);
	ready();
	CHECK(pthread_mutex_trylock(&mutex) == EBUSY);
	CHECK(pthread_mutex_unlock(&mutex) == 0);
	CHECK(pthread_create(&thread, NULL, dies_with_lock, NULL) == 0);
	board_await(meeting, 0, 1);
	board_post(meeting, 1);
	CHECK(pthread_join(thread, NULL) == 0);
}

static void *differs(void *unused)
{
	(void)unused;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGRTMIN + 3);
	CHECK(pthread_sigmask(SIG_SETMASK, &set, NULL) == 0);
	CHECK(setpriority(PRIO_PROCESS, gettid(), 11) == 0);
	board_post(meeting, 0);
	board_await(meeting, 1, 1);
	sigset_t now;
	CHECK(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0);
	CHECK(sigismember(&now, SIGTERM) && sigismember(&now, SIGRTMIN + 3) && !sigismember(&now, SIGHUP));
	CHECK(getpriority(PRIO_PROCESS, gettid()) == 11);
	return NULL;
}

PROGRAM(thread_attributes, ANYONE, "each thread's mask and nice value")
{
	pthread_t thread;
	meeting = board_new();
	CHECK(pthread_create(&thread, NULL, differs, NULL) == 0);
	board_await(meeting, 0, 1);
	ready();
	CHECK(getpriority(PRIO_PROCESS, 0) == 0);
	board_post(meeting, 1);
	CHECK(pthread_join(thread, NULL) == 0);
}

static int leader_pipe[2], leader_answer[2];

/* leader_ends returns when the first thread of this process has ended; a dead
 * init hangs here if it is alive again. */
static void leader_ends(void)
{
	char path[64], line[64] = {0};
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
	while (!strstr(line, ") Z ")) {
		int fd = SYS(open(path, O_RDONLY | O_CLOEXEC));
		CHECK(read(fd, line, sizeof line - 1) > 0);
		close(fd);
	}
}

/* What the threads of a process without a leader say of it. */
static void *survivor(void *number)
{
	char c;
	if ((long)number == 0) {
		while (read(leader_pipe[0], &c, 1) == 1) {
			leader_ends(); /* before the first answer; later it has to be so at once */
			CHECK(gettid() != getpid());
			CHECK(write(leader_answer[1], &c, 1) == 1);
		}
		/* Until Linux 6.0 the process had its leader's status then. */
		syscall(SYS_exit, 42);
	}
	while (read(leader_pipe[0], &c, 0) == 0)
		pause();
	return NULL;
}

static void leave_threads(int n)
{
	pthread_t thread;
	for (long i = 0; i < n; i++)
		CHECK(pthread_create(&thread, NULL, survivor, (void *)i) == 0);
	syscall(SYS_exit, 42);
}

PROGRAM(thread_dead_leader, ANYONE, "a process whose first thread has ended before the others, with a child")
{
	char c;
	CHECK(pipe(leader_pipe) == 0 && pipe(leader_answer) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		close(leader_pipe[1]);
		if (fork() == 0) { /* adopted by one of its threads */
			while (write(leader_answer[1], "c", 1) == 1)
				pause();
			_exit(0);
		}
		leave_threads(1);
	}
	CHECK(read(leader_answer[0], &c, 1) == 1 && c == 'c');
	CHECK(write(leader_pipe[1], "a", 1) == 1 && read(leader_answer[0], &c, 1) == 1 && c == 'a');
	ready();
	CHECK(write(leader_pipe[1], "b", 1) == 1 && read(leader_answer[0], &c, 1) == 1 && c == 'b');
	CHECK(kill(child, 0) == 0);
	int status;
	CHECK(waitpid(child, &status, WNOHANG) == 0);
	close(leader_pipe[1]);
	CHECK(child_exits(child) == 42);
}

static void *first_survivor(void *unused)
{
	sigset_t ask;
	sigemptyset(&ask);
	sigaddset(&ask, SIGUSR1);
	leader_ends();
	announce();
	int got;
	CHECK(sigwait(&ask, &got) == 0 && got == SIGUSR1);
	leader_ends();
	CHECK(getpid() == 1 && gettid() != 1);
	CHECK(write(1, "good\n", 5) == 5);
	_exit(0);
	return unused;
}

PROGRAM(thread_dead_init, ANYONE, "the first process without its first thread")
{
	pthread_t thread;
	sigset_t ask;
	sigemptyset(&ask);
	sigaddset(&ask, SIGUSR1);
	CHECK(sigprocmask(SIG_BLOCK, &ask, NULL) == 0);
	CHECK(pthread_create(&thread, NULL, first_survivor, NULL) == 0);
	syscall(SYS_exit, 0);
}

/* What a process of shared_tables sees of a table: descriptor 70 is an event
 * counter that nobody had when it was made. */
static int counter_of(int fd)
{
	uint64_t n = 0;
	return read(fd, &n, sizeof n) == sizeof n ? (int)n : -errno;
}

/* sharer answers on board stages at and at + 1. */
static void sharer(struct board *b, int at)
{
	CHECK(dup2(SYS(eventfd(at, 0)), 70 + at) == 70 + at);
	board_post(b, at);
	board_await(b, at, 2);
	CHECK(counter_of(70) == 7);
	CHECK(close(70 + at) == 0);
	CHECK(fcntl(80 + at, F_GETFD) == FD_CLOEXEC);
	board_post(b, at + 1);
}

/* two of them, one the child of the other */
static void sharers(struct board *b)
{
	pid_t child = SYS(syscall(SYS_clone, CLONE_FILES | CLONE_FS | SIGCHLD, 0, 0, 0, 0));
	if (child == 0) {
		sharer(b, 6);
		_exit(0);
	}
	board_await(b, 6, 1);
	sharer(b, 4);
	CHECK(child_exits(child) == 0);
	_exit(0);
}

PROGRAM(shared_tables, ANYONE, "a child and a grandchild with one descriptor table, and a child with its own")
{
	struct board *b = board_new();
	int p[2], sp[2], file = SYS(open("/tmp/locked", O_RDWR | O_CREAT, 0600));
	CHECK(pipe(p) == 0 && write(p[1], "pipe", 4) == 4);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sp) == 0 && write(sp[1], "pair", 4) == 4);
	CHECK(write(file, "0123456789", 10) == 10 && lseek(file, 3, SEEK_SET) == 3);
	struct flock range = {.l_type = F_WRLCK, .l_start = 2, .l_len = 5};
	CHECK(fcntl(file, F_SETLK, &range) == 0);
	pid_t lone = SYS(fork());
	if (lone == 0) {
		board_post(b, 40);
		board_await(b, 40, 2);
		CHECK(fcntl(70, F_GETFD) == -1 && errno == EBADF && fcntl(84, F_GETFD) == -1);
		struct flock other = range;
		CHECK(fcntl(file, F_GETLK, &other) == 0 && other.l_type == F_WRLCK && other.l_start == 2 && other.l_len == 5);
		_exit(9);
	}
	pid_t child = SYS(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
	if (child == 0)
		sharers(b);
	board_await(b, 40, 1);
	board_await(b, 4, 1);
	CHECK(counter_of(74) == 4 && counter_of(76) == 6); /* they are ours, too */
	int poll = SYS(epoll_create1(EPOLL_CLOEXEC));
	struct epoll_event e = {.events = EPOLLIN};
	CHECK(epoll_ctl(poll, EPOLL_CTL_ADD, p[0], &e) == 0);
	ready();
	CHECK(dup3(SYS(open("/dev/null", O_RDONLY)), 84, O_CLOEXEC) == 84 && dup3(84, 86, O_CLOEXEC) == 86);
	for (int at = 4; at <= 6; at += 2) {
		int fd = SYS(eventfd(7, 0));
		CHECK(dup2(fd, 70) == 70 && close(fd) == 0);
		board_post(b, at);
		board_await(b, at + 1, 1);
		CHECK(fcntl(70 + at, F_GETFD) == -1 && errno == EBADF); /* closed for all */
	}
	char text[8];
	CHECK(epoll_wait(poll, &e, 1, 0) == 1);
	CHECK(read(p[0], text, 4) == 4 && !memcmp(text, "pipe", 4) && read(sp[0], text, 4) == 4 && !memcmp(text, "pair", 4));
	CHECK(read(file, text, 2) == 2 && !memcmp(text, "34", 2));
	CHECK(close(70) == 0);
	board_post(b, 40);
	CHECK(child_exits(child) == 0 && child_exits(lone) == 9);
}

/* struct sched_attr of sched_setattr(2), of which this libc may have none. */
struct policy {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static void *deadline_thread(void *arg)
{
	struct board *b = arg;
	struct policy d = {.size = sizeof d, .policy = 6, .flags = 2, .runtime = 2000000, .deadline = 30000000, .period = 40000000};
	CHECK(syscall(SYS_sched_setattr, 0, &d, 0) == 0);
	board_post(b, 0);
	board_await(b, 1, 1);
	struct policy now;
	CHECK(syscall(SYS_sched_getattr, 0, &now, sizeof now, 0) == 0);
	CHECK(now.policy == 6 && now.flags == 2 && now.runtime == d.runtime && now.deadline == d.deadline && now.period == d.period);
	return NULL;
}

PROGRAM(deadlines, ROOT | ALL_CAPS, "a thread that runs for a time in each period (SCHED_DEADLINE)")
{
	struct board *b = board_new();
	pthread_t t;
	CHECK(pthread_create(&t, NULL, deadline_thread, b) == 0);
	board_await(b, 0, 1);
	ready();
	board_post(b, 1);
	CHECK(pthread_join(t, NULL) == 0);
	CHECK(sched_getscheduler(0) == SCHED_OTHER);
}
