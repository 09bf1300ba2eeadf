/* SPDX-License-Identifier: Apache-2.0 */

/* Descriptors by which a program watches processes and files. */
#include "programs.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

static int pidfd_of(pid_t pid, unsigned flags) { return SYS(syscall(SYS_pidfd_open, pid, flags)); }

static int pidfd_ended(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return SYS(poll(&p, 1, 0)) == 1 && p.revents & POLLIN;
}

static pid_t sleeper(void)
{
	pid_t child = SYS(fork());
	if (child == 0)
		for (;;)
			pause();
	return child;
}

PROGRAM(pidfd_alive, ANYONE, "pidfds of a child, of the program itself, and one that epoll watches")
{
	pid_t child = sleeper();
	int fd = pidfd_of(child, O_NONBLOCK), self = pidfd_of(getpid(), 0), epoll = SYS(epoll_create1(0)), kept = SYS(dup(fd));
	struct epoll_event e = {.events = EPOLLIN, .data.u32 = 9};
	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == 0);
	CHECK(fcntl(self, F_SETFD, 0) == 0);
	ready();
	siginfo_t info = {0};
	CHECK(fcntl(self, F_GETFD) == 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
	CHECK(fcntl(kept, F_GETFL) & O_NONBLOCK && !(fcntl(self, F_GETFL) & O_NONBLOCK));
	CHECK(!pidfd_ended(fd) && !pidfd_ended(self) && epoll_wait(epoll, &e, 1, 0) == 0);
	CHECK(waitid(P_PIDFD, fd, &info, WEXITED) == -1 && errno == EAGAIN);
	CHECK(syscall(SYS_pidfd_send_signal, self, 0, NULL, 0) == 0);
	CHECK(syscall(SYS_pidfd_send_signal, kept, SIGTERM, NULL, 0) == 0);
	CHECK(epoll_wait(epoll, &e, 1, 5000) == 1 && e.data.u32 == 9);
	CHECK(waitid(P_PIDFD, fd, &info, WEXITED) == 0 && info.si_pid == child && info.si_status == SIGTERM);
}

PROGRAM(pidfd_zombie, ANYONE, "pidfds of a zombie, which are still to be waited for")
{
	pid_t child = SYS(fork());
	if (child == 0)
		_exit(41);
	int fd = pidfd_of(child, 0);
	siginfo_t info = {0};
	CHECK(waitid(P_PIDFD, fd, &info, WEXITED | WNOWAIT) == 0);
	ready();
	CHECK(pidfd_ended(fd) && syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == 0);
	CHECK(waitid(P_PIDFD, fd, &info, WEXITED) == 0 && info.si_pid == child && info.si_status == 41 && info.si_uid == getuid());
	CHECK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == -1 && errno == ESRCH);
}

PROGRAM(pidfd_gone, ANYONE, "pidfds of processes that were waited for, shared with a child that is watched by another one")
{
	int fd[2];
	for (int i = 0; i < 2; i++) {
		pid_t child = SYS(fork());
		if (child == 0)
			_exit(7);
		fd[i] = pidfd_of(child, 0);
		CHECK(child_exits(child) == 7);
	}
	pid_t other = sleeper();
	int watched = pidfd_of(other, 0);
	struct board *b = board_new();
	pid_t watcher = SYS(fork());
	if (watcher == 0) {
		board_await(b, 0, 1);
		CHECK(pidfd_ended(fd[0]) && pidfd_ended(fd[1]) && !pidfd_ended(watched));
		CHECK(syscall(SYS_pidfd_send_signal, watched, SIGKILL, NULL, 0) == 0);
		struct pollfd p = {.fd = watched, .events = POLLIN};
		CHECK(poll(&p, 1, 5000) == 1);
		_exit(3);
	}
	ready();
	siginfo_t info;
	for (int i = 0; i < 2; i++) {
		CHECK(pidfd_ended(fd[i]) && waitid(P_PIDFD, fd[i], &info, WEXITED) == -1 && errno == ECHILD);
		CHECK(syscall(SYS_pidfd_send_signal, fd[i], 0, NULL, 0) == -1 && errno == ESRCH);
	}
	/* Nobody is told of the processes that stood in for them. */
	CHECK(waitpid(-1, NULL, WNOHANG | __WALL) == 0);
	board_post(b, 0);
	CHECK(child_exits(watcher) == 3);
	int status;
	CHECK(waitpid(other, &status, 0) == other && WTERMSIG(status) == SIGKILL);
}

/* next_event reads one event and returns its name, "" for none. */
static const char *next_event(int fd, int wd, uint32_t mask)
{
	static char buf[4096];
	static ssize_t have, at;
	if (at >= have) {
		have = SYS(read(fd, buf, sizeof buf));
		at = 0;
	}
	struct inotify_event *e = (void *)(buf + at);
	at += sizeof *e + e->len;
	if (e->wd != wd || !(e->mask & mask))
		fail("event %#x of watch %d, want %#x of %d", e->mask, e->wd, mask, wd);
	return e->len ? e->name : "";
}

static void no_event(int fd)
{
	char c[512];
	CHECK(read(fd, c, sizeof c) == -1 && errno == EAGAIN);
}

PROGRAM(inotify_watches, ANYONE, "watched files and directories keep their numbers, with gaps, deep, renamed and linked ones")
{
	int fd = SYS(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)), epoll = SYS(epoll_create1(0)), wd[5];
	struct epoll_event e = {.events = EPOLLIN};
	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == 0);
	CHECK(mkdir("/tmp/a", 0700) == 0 && mkdir("/tmp/a/b", 0700) == 0 && mkdir("/tmp/a/b/c", 0700) == 0);
	int file = SYS(open("/tmp/a/file", O_RDWR | O_CREAT, 0600)), once = SYS(open("/tmp/once", O_RDWR | O_CREAT, 0600));
	CHECK(symlink("/tmp/a", "/tmp/link") == 0);
	wd[0] = SYS(inotify_add_watch(fd, "/tmp/a", IN_CREATE));
	wd[1] = SYS(inotify_add_watch(fd, "/tmp/a/b/c", IN_CREATE | IN_DELETE | IN_EXCL_UNLINK));
	wd[2] = SYS(inotify_add_watch(fd, "/tmp/a/b", IN_CREATE));
	wd[3] = SYS(inotify_add_watch(fd, "/tmp/a/file", IN_MODIFY));
	CHECK(inotify_rm_watch(fd, wd[2]) == 0);
	char drop[256];
	CHECK(read(fd, drop, sizeof drop) > 0); /* IN_IGNORED */
	wd[4] = SYS(inotify_add_watch(fd, "/tmp/once", IN_MODIFY | IN_ONESHOT));
	CHECK(rename("/tmp/a/file", "/tmp/elsewhere") == 0);
	int link_wd = SYS(inotify_add_watch(fd, "/tmp/link", IN_ATTRIB | IN_DONT_FOLLOW));
	ready();
	CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
	no_event(fd);
	CHECK(epoll_wait(epoll, &e, 1, 0) == 0);
	CHECK(mkdir("/tmp/a/new", 0700) == 0 && mkdir("/tmp/a/b/none", 0700) == 0 && mkdir("/tmp/a/b/c/deep", 0700) == 0);
	CHECK(epoll_wait(epoll, &e, 1, 0) == 1);
	CHECK(!strcmp(next_event(fd, wd[0], IN_CREATE), "new") && !strcmp(next_event(fd, wd[1], IN_CREATE), "deep"));
	CHECK(write(file, "x", 1) == 1 && write(once, "x", 1) == 1);
	next_event(fd, wd[3], IN_MODIFY);
	next_event(fd, wd[4], IN_MODIFY);
	next_event(fd, wd[4], IN_IGNORED);
	CHECK(unlink("/tmp/link") == 0);
	next_event(fd, link_wd, IN_ATTRIB);
	next_event(fd, link_wd, IN_IGNORED);
	no_event(fd);
	CHECK(inotify_rm_watch(fd, wd[2]) == -1 && errno == EINVAL);
	CHECK(SYS(inotify_add_watch(fd, "/tmp/a/b", IN_CREATE)) > link_wd);
}

PROGRAM(inotify_many, ANYONE, "two thousand watched directories, an instance that a child shares, one on a tmpfs and one of the root")
{
	enum { MANY = 2000 };
	static int wd[MANY];
	int fd = SYS(inotify_init1(IN_NONBLOCK)), other = SYS(inotify_init1(IN_NONBLOCK));
	char path[64];
	for (int i = 0; i < MANY; i++) {
		snprintf(path, sizeof path, "/tmp/many%d", i);
		CHECK(mkdir(path, 0700) == 0);
		wd[i] = SYS(inotify_add_watch(fd, path, IN_CREATE));
	}
	CHECK(mkdir("/dev/shm/watched", 0700) == 0);
	int on_tmpfs = SYS(inotify_add_watch(other, "/dev/shm/watched", IN_CREATE)), root = SYS(inotify_add_watch(other, "/", IN_MOVED_TO));
	CHECK(root != on_tmpfs);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_await(b, 0, 1);
		CHECK(!strcmp(next_event(fd, wd[MANY - 1], IN_CREATE), "x"));
		_exit(5);
	}
	ready();
	no_event(fd);
	no_event(other);
	snprintf(path, sizeof path, "/tmp/many%d/x", MANY - 1);
	CHECK(mkdir(path, 0700) == 0 && mkdir("/dev/shm/watched/y", 0700) == 0);
	board_post(b, 0);
	CHECK(!strcmp(next_event(other, on_tmpfs, IN_CREATE), "y"));
	CHECK(child_exits(child) == 5);
}

PROGRAM(inotify_unread, ANYONE, "of unread events the program is told by an overflow, or they are there (the original)")
{
	int fd = SYS(inotify_init1(0)), wd = SYS(inotify_add_watch(fd, "/tmp", IN_CREATE));
	CHECK(mkdir("/tmp/early", 0700) == 0);
	ready();
	char buf[512];
	ssize_t n = SYS(read(fd, buf, sizeof buf));
	struct inotify_event *e = (void *)buf;
	CHECK((size_t)n == sizeof *e + e->len);
	if (!(e->mask & IN_Q_OVERFLOW ? e->wd == -1 : e->wd == wd && !strcmp(e->name, "early")))
		fail("event %#x of watch %d (%d), %s", e->mask, e->wd, wd, e->len ? e->name : "");
	CHECK(mkdir("/tmp/late", 0700) == 0);
	CHECK(!strcmp(next_event(fd, wd, IN_CREATE), "late"));
	int left;
	CHECK(ioctl(fd, FIONREAD, &left) == 0 && left == 0);
}
