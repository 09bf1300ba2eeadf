/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What threads that have a descriptor table of their own do with it: they fill it up to
 * the limit, fork with it, send what is in it, and have connections and terminals there.
 */
#include "programs.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <termios.h>

static struct board *meeting;

/* What a thread does in its table before, and behind, what the harness does. */
struct plan {
	void (*before)(void), (*after)(void);
};

static void *apart(void *argument)
{
	struct plan *p = argument;
	CHECK(unshare(CLONE_FILES) == 0);
	p->before();
	board_post(meeting, 0);
	board_await(meeting, 1, 1);
	p->after();
	board_post(meeting, 2);
	board_await(meeting, 3, 1);
	return NULL;
}

/* begins starts such a thread. */
static void begins(struct plan *p)
{
	pthread_t thread;
	meeting = board_new();
	CHECK(pthread_create(&thread, NULL, apart, p) == 0);
	board_await(meeting, 0, 1);
}

/* goes_on lets the thread look at what it has. */
static void goes_on(void)
{
	board_post(meeting, 1);
	board_await(meeting, 2, 1);
}

/* counter opens an eventfd that holds a number, in a place. */
static void counter(int at, int value)
{
	int fd = SYS(eventfd(value, 0));
	CHECK(dup2(fd, at) == at);
	if (fd != at)
		close(fd);
}

static int counts(int fd)
{
	uint64_t value;
	CHECK(read(fd, &value, 8) == 8);
	return value;
}

enum { LIMIT = 64, ABOVE = 300 };

static void fills(int base)
{
	counter(ABOVE, base + ABOVE);
	for (int fd = 3; fd < LIMIT; fd++)
		counter(fd, base + fd);
}

static void is_full(int base)
{
	CHECK(open("/dev/null", O_RDONLY) == -1 && errno == EMFILE);
	for (int fd = 3; fd < LIMIT; fd++)
		CHECK(counts(fd) == base + fd);
	CHECK(counts(ABOVE) == base + ABOVE && fcntl(ABOVE + 1, F_GETFD) == -1);
}

static void fills_own(void) { fills(1000); }
static void own_is_full(void) { is_full(1000); }

PROGRAM(threads_files_limit, ANYONE, "two full tables with nothing in common, and descriptors above the limit")
{
	static struct plan p = {fills_own, own_is_full};
	begins(&p);
	fills(5000);
	struct rlimit few = {LIMIT, LIMIT};
	CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
	ready();
	struct rlimit now;
	CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == LIMIT && now.rlim_max == LIMIT);
	goes_on();
	is_full(5000);
}

enum { SHARED = 40, ALONE = 41, PIPED = 42 };
static pid_t forked;

static void forks(void)
{
	int ends[2];
	int fd = SYS(memfd_create("shared", 0));
	CHECK(write(fd, "0123456789", 10) == 10 && lseek(fd, 0, SEEK_SET) == 0 && dup2(fd, SHARED) == SHARED);
	close(fd);
	CHECK(pipe(ends) == 0 && dup2(ends[1], PIPED) == PIPED);
	close(ends[1]);
	forked = SYS(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
	if (forked == 0) {
		char c[4];
		close(PIPED);
		CHECK(dup2(ends[0], PIPED) == PIPED);
		close(ends[0]);
		counter(ALONE, 5);
		CHECK(read(PIPED, c, 3) == 3 && !memcmp(c, "go!", 3));
		CHECK(lseek(SHARED, 0, SEEK_CUR) == 4 && read(SHARED, c, 2) == 2 && !memcmp(c, "45", 2));
		_exit(counts(ALONE));
	}
	close(ends[0]);
	counter(ALONE, 6);
}

static void has_forked(void)
{
	CHECK(lseek(SHARED, 4, SEEK_SET) == 4 && counts(ALONE) == 6);
	CHECK(write(PIPED, "go!", 3) == 3);
	CHECK(child_exits(forked) == 5);
	CHECK(lseek(SHARED, 0, SEEK_CUR) == 6);
}

PROGRAM(threads_files_fork, ANYONE, "a child that a thread has made with its own table")
{
	static struct plan p = {forks, has_forked};
	begins(&p);
	counter(ALONE, 7);
	ready();
	CHECK(fcntl(SHARED, F_GETFD) == -1 && fcntl(PIPED, F_GETFD) == -1);
	goes_on();
	CHECK(counts(ALONE) == 7);
}

enum { LISTENS = 50, CLIENT = 51, SERVER = 52, SENDS = 53, TAKES = 54, NAMED = 55, DIALS = 56 };

static void moves(int from, int to)
{
	CHECK(dup2(from, to) == to);
	close(from);
}

/* sends puts a descriptor into the queue of a socket and closes it. */
static void sends(int by, int fd)
{
	char room[CMSG_SPACE(sizeof fd)] = {0}, byte = 'f';
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	CHECK(sendmsg(by, &m, 0) == 1);
	close(fd);
}

static int takes(int by)
{
	char room[CMSG_SPACE(sizeof(int))] = {0}, byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	int fd;
	CHECK(recvmsg(by, &m, 0) == 1 && CMSG_FIRSTHDR(&m));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

static const struct sockaddr_un_ {
	sa_family_t family;
	char path[16];
} abstract = {AF_UNIX, "\0tables"};

static void connects(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	int pair[2];
	moves(SYS(socket(AF_INET, SOCK_STREAM, 0)), LISTENS);
	CHECK(bind(LISTENS, (void *)&a, n) == 0 && listen(LISTENS, 4) == 0 && getsockname(LISTENS, (void *)&a, &n) == 0);
	moves(SYS(socket(AF_INET, SOCK_STREAM, 0)), CLIENT);
	CHECK(connect(CLIENT, (void *)&a, n) == 0);
	moves(SYS(accept(LISTENS, NULL, NULL)), SERVER);
	CHECK(write(CLIENT, "to the server", 13) == 13 && write(SERVER, "to the client", 13) == 13);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	moves(pair[0], SENDS), moves(pair[1], TAKES);
	sends(SENDS, SYS(eventfd(9, 0)));
	sends(SENDS, SYS(dup(SERVER)));
	moves(SYS(socket(AF_UNIX, SOCK_STREAM, 0)), NAMED);
	CHECK(bind(NAMED, (void *)&abstract, sizeof abstract) == 0 && listen(NAMED, 4) == 0);
	moves(SYS(socket(AF_UNIX, SOCK_STREAM, 0)), DIALS);
	CHECK(connect(DIALS, (void *)&abstract, sizeof abstract) == 0);
}

static void is_connected(void)
{
	char text[32];
	CHECK(read(SERVER, text, sizeof text) == 13 && !memcmp(text, "to the server", 13));
	CHECK(read(CLIENT, text, sizeof text) == 13 && !memcmp(text, "to the client", 13));
	CHECK(counts(takes(TAKES)) == 9);
	int also = takes(TAKES);
	CHECK(write(also, "again", 5) == 5 && read(CLIENT, text, sizeof text) == 5);
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	CHECK(getsockname(LISTENS, (void *)&a, &n) == 0);
	int fd = SYS(socket(AF_INET, SOCK_STREAM, 0));
	CHECK(connect(fd, (void *)&a, n) == 0);
	CHECK(write(SYS(accept(LISTENS, NULL, NULL)), "new", 3) == 3 && read(fd, text, sizeof text) == 3);
	CHECK(write(SYS(accept(NAMED, NULL, NULL)), "named", 5) == 5 && read(DIALS, text, sizeof text) == 5);
}

PROGRAM(threads_files_sockets, ANYONE, "connections, listeners and descriptors in flight that only a thread has")
{
	static struct plan p = {connects, is_connected};
	begins(&p);
	for (int fd = LISTENS; fd <= DIALS; fd++)
		counter(fd, fd);
	ready();
	goes_on();
	for (int fd = LISTENS; fd <= DIALS; fd++)
		CHECK(counts(fd) == fd);
}

enum { MASTER = 60, SLAVE = 61, SIGNALS = 62, PEER = 63 };

static volatile sig_atomic_t told;
static void tells(int signal) { told = signal; }

static void has_terminal(void)
{
	struct termios raw;
	int pair[2];
	moves(SYS(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)), MASTER);
	CHECK(grantpt(MASTER) == 0 && unlockpt(MASTER) == 0);
	moves(SYS(open(ptsname(MASTER), O_RDWR | O_NOCTTY)), SLAVE);
	CHECK(tcgetattr(SLAVE, &raw) == 0);
	cfmakeraw(&raw);
	CHECK(tcsetattr(SLAVE, TCSANOW, &raw) == 0);
	CHECK(write(MASTER, "typed", 5) == 5 && write(SLAVE, "shown", 5) == 5);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	moves(pair[0], SIGNALS), moves(pair[1], PEER);
	struct f_owner_ex me = {F_OWNER_TID, gettid()};
	CHECK(fcntl(SIGNALS, F_SETOWN_EX, &me) == 0 && fcntl(SIGNALS, F_SETSIG, SIGRTMIN) == 0);
	CHECK(fcntl(SIGNALS, F_SETFL, O_ASYNC) == 0);
}

static void has_still(void)
{
	char text[32];
	CHECK(read(SLAVE, text, sizeof text) == 5 && !memcmp(text, "typed", 5));
	CHECK(read(MASTER, text, sizeof text) == 5 && !memcmp(text, "shown", 5));
	CHECK(fcntl(MASTER, F_GETFD) == 0 && fcntl(SLAVE, F_GETFD) == 0);
	CHECK(write(PEER, "x", 1) == 1);
	while (told != SIGRTMIN) /* it is on its way to this thread */
		sched_yield();
}

PROGRAM(threads_files_terminal, ANYONE, "a terminal, and a socket that tells by a signal, that only a thread has")
{
	static struct plan p = {has_terminal, has_still};
	struct sigaction a = {.sa_handler = tells};
	CHECK(sigaction(SIGRTMIN, &a, NULL) == 0);
	begins(&p);
	ready();
	for (int fd = MASTER; fd <= PEER; fd++)
		CHECK(fcntl(fd, F_GETFD) == -1);
	goes_on();
}

enum { MANY = 200 };
static int values[MANY];

static void *one_of_many(void *argument)
{
	int *value = argument;
	CHECK(unshare(CLONE_FILES) == 0);
	counter(10, *value);
	counter(11 + *value, *value);
	board_post(meeting, 0);
	board_await(meeting, 1, 1);
	CHECK(counts(10) == *value && counts(11 + *value) == *value);
	for (int fd = 11; fd < 12 + MANY; fd++)
		CHECK((fcntl(fd, F_GETFD) == 0) == (fd == 11 + *value));
	board_post(meeting, 2);
	return NULL;
}

PROGRAM(threads_files_many, ANYONE, "many threads that each have a table of their own")
{
	meeting = board_new();
	for (int i = 0; i < MANY; i++) {
		pthread_t thread;
		values[i] = i + 1;
		CHECK(pthread_create(&thread, NULL, one_of_many, &values[i]) == 0);
	}
	board_await(meeting, 0, MANY);
	ready();
	board_post(meeting, 1);
	board_await(meeting, 2, MANY);
	CHECK(fcntl(10, F_GETFD) == -1);
}
