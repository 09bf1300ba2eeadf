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
