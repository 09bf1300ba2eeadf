/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

PROGRAM(pipe_content, ANYONE, "what is unread in a pipe")
{
	int ends[2];
	char out[10000], in[10000];
	CHECK(pipe(ends) == 0);
	fill(out, sizeof out, 1);
	CHECK(write(ends[1], out, sizeof out) == sizeof out);
	ready();
	CHECK(read(ends[0], in, sizeof in) == sizeof in);
	CHECK(filled(in, sizeof in, 1));
	CHECK(write(ends[1], "z", 1) == 1 && read(ends[0], in, 5) == 1 && in[0] == 'z');
}

PROGRAM(pipe_packets, ANYONE, "a pipe in packet mode keeps its packets apart")
{
	int ends[2];
	char in[100];
	CHECK(pipe2(ends, O_DIRECT) == 0);
	CHECK(write(ends[1], "one", 3) == 3 && write(ends[1], "three", 5) == 5);
	ready();
	CHECK(read(ends[0], in, sizeof in) == 3 && !memcmp(in, "one", 3));
	CHECK(read(ends[0], in, sizeof in) == 5 && !memcmp(in, "three", 5));
	CHECK(fcntl(ends[1], F_GETFL) & O_DIRECT);
}

PROGRAM(pipe_size, ANYONE, "a pipe's capacity")
{
	int ends[2];
	CHECK(pipe(ends) == 0);
	CHECK(fcntl(ends[0], F_SETPIPE_SZ, 262144) == 262144);
	ready();
	CHECK(fcntl(ends[1], F_GETPIPE_SZ) == 262144);
}

PROGRAM(pipe_end_of_file, ANYONE, "a pipe without a writer is at its end, one without a reader is broken")
{
	int ends[2], broken[2];
	char c;
	CHECK(pipe(ends) == 0 && pipe(broken) == 0);
	CHECK(write(ends[1], "a", 1) == 1);
	close(ends[1]);
	close(broken[0]);
	signal(SIGPIPE, SIG_IGN);
	ready();
	CHECK(read(ends[0], &c, 1) == 1 && c == 'a');
	CHECK(read(ends[0], &c, 1) == 0);
	CHECK(write(broken[1], "b", 1) == -1 && errno == EPIPE);
}

PROGRAM(pipe_blocked_reader, ANYONE, "a child that is blocked in read goes on to wait")
{
	int ends[2];
	CHECK(pipe(ends) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		char c = 0;
		close(ends[1]);
		CHECK(read(ends[0], &c, 1) == 1 && c == 'q');
		_exit(9);
	}
	close(ends[0]);
	ready();
	CHECK(write(ends[1], "q", 1) == 1);
	CHECK(child_exits(child) == 9);
}

PROGRAM(pipe_nonblocking, ANYONE, "flags of each end are its own")
{
	int ends[2];
	char c;
	CHECK(pipe(ends) == 0);
	CHECK(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
	CHECK(fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0);
	ready();
	CHECK(read(ends[0], &c, 1) == -1 && errno == EAGAIN);
	CHECK(!(fcntl(ends[1], F_GETFL) & O_NONBLOCK));
	CHECK(fcntl(ends[1], F_GETFD) == FD_CLOEXEC && fcntl(ends[0], F_GETFD) == 0);
}

PROGRAM(fifo, ANYONE, "a named pipe with content")
{
	char c[4];
	CHECK(mkfifo("/tmp/fifo", 0600) == 0 || errno == EEXIST);
	int fd = SYS(open("/tmp/fifo", O_RDWR));
	CHECK(write(fd, "abc", 3) == 3);
	ready();
	CHECK(read(fd, c, 4) == 3 && !memcmp(c, "abc", 3));
	int other = SYS(open("/tmp/fifo", O_WRONLY));
	CHECK(write(other, "d", 1) == 1 && read(fd, c, 4) == 1 && c[0] == 'd');
}

PROGRAM(eventfd_value, ANYONE, "an eventfd's counter and semaphore mode")
{
	uint64_t v = 5;
	int plain = SYS(eventfd(3, EFD_NONBLOCK)), semaphore = SYS(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
	CHECK(write(plain, &v, 8) == 8);
	ready();
	CHECK(read(plain, &v, 8) == 8 && v == 8);
	CHECK(read(plain, &v, 8) == -1 && errno == EAGAIN);
	CHECK(read(semaphore, &v, 8) == 8 && v == 1);
	CHECK(read(semaphore, &v, 8) == 8 && v == 1);
	CHECK(read(semaphore, &v, 8) == -1 && errno == EAGAIN);
}

PROGRAM(epoll_nest, ANYONE, "epoll in epoll, edge-triggered and one-shot")
{
	int ends[2], outer = SYS(epoll_create1(0)), inner = SYS(epoll_create1(EPOLL_CLOEXEC)), event = SYS(eventfd(0, EFD_NONBLOCK));
	struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.u64 = 0x1234567890};
	CHECK(pipe(ends) == 0);
	CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, ends[0], &e) == 0);
	e.events = EPOLLIN | EPOLLONESHOT;
	e.data.u64 = 77;
	CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, event, &e) == 0);
	e.events = EPOLLIN;
	e.data.u64 = 99;
	CHECK(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &e) == 0);
	ready();
	CHECK(epoll_wait(outer, &e, 1, 0) == 0);
	CHECK(write(ends[1], "x", 1) == 1);
	CHECK(epoll_wait(outer, &e, 1, 1000) == 1 && e.data.u64 == 99);
	CHECK(epoll_wait(inner, &e, 1, 1000) == 1 && e.data.u64 == 0x1234567890 && e.events == EPOLLIN);
	CHECK(epoll_wait(inner, &e, 1, 0) == 0); /* the edge has passed */
	uint64_t v = 1;
	CHECK(write(event, &v, 8) == 8 && epoll_wait(inner, &e, 1, 1000) == 1 && e.data.u64 == 77);
	CHECK(epoll_wait(inner, &e, 1, 0) == 0);
}

PROGRAM(epoll_fired_oneshot, ANYONE, "a one-shot that has fired stays quiet until it is armed again")
{
	int epoll = SYS(epoll_create1(0)), event = SYS(eventfd(1, EFD_NONBLOCK));
	struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = 5};
	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, event, &e) == 0);
	CHECK(epoll_wait(epoll, &e, 1, 0) == 1);
	ready();
	CHECK(epoll_wait(epoll, &e, 1, 0) == 0);
	e.events = EPOLLIN;
	e.data.u32 = 6;
	CHECK(epoll_ctl(epoll, EPOLL_CTL_MOD, event, &e) == 0);
	CHECK(epoll_wait(epoll, &e, 1, 0) == 1 && e.data.u32 == 6);
}

PROGRAM(epoll_blocked, ANYONE, "a child that is blocked in epoll_wait is not woken by the checkpoint")
{
	int event = SYS(eventfd(0, 0));
	pid_t child = SYS(fork());
	if (child == 0) {
		int epoll = SYS(epoll_create1(0));
		struct epoll_event e = {.events = EPOLLIN, .data.u32 = 1};
		CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, event, &e) == 0);
		CHECK(epoll_wait(epoll, &e, 1, -1) == 1);
		_exit(4);
	}
	usleep(20000);
	ready();
	uint64_t v = 1;
	CHECK(write(event, &v, 8) == 8);
	CHECK(child_exits(child) == 4);
}

PROGRAM(timerfd_armed, ANYONE, "a timerfd fires when it should, an interval goes on, missed ticks stay")
{
	int once = SYS(timerfd_create(CLOCK_MONOTONIC, 0)), often = SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	struct itimerspec in100 = {.it_value = {100, 0}}, tick = {.it_value = {0, 1000000}, .it_interval = {0, 1000000}};
	CHECK(timerfd_settime(once, 0, &in100, NULL) == 0 && timerfd_settime(often, 0, &tick, NULL) == 0);
	usleep(20000);
	ready();
	struct itimerspec left;
	uint64_t n;
	CHECK(timerfd_gettime(once, &left) == 0);
	CHECK(left.it_value.tv_sec > 30 && left.it_value.tv_sec < 100);
	CHECK(read(often, &n, 8) == 8 && n >= 15);
	usleep(20000);
	CHECK(read(often, &n, 8) == 8 && n >= 5);
	CHECK(timerfd_gettime(often, &left) == 0 && left.it_interval.tv_nsec == 1000000);
}

PROGRAM(signalfd_pending, ANYONE, "a signalfd with a signal in it")
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	int fd = SYS(signalfd(-1, &set, SFD_NONBLOCK));
	union sigval v = {.sival_int = 4711};
	CHECK(sigqueue(getpid(), SIGRTMIN, v) == 0);
	ready();
	struct signalfd_siginfo info;
	CHECK(read(fd, &info, sizeof info) == sizeof info);
	CHECK(info.ssi_signo == (uint32_t)SIGRTMIN && info.ssi_int == 4711);
	CHECK(read(fd, &info, sizeof info) == -1 && errno == EAGAIN);
}
