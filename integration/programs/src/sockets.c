/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

PROGRAM(unix_pair_stream, ANYONE, "a pair of unix sockets with unread data in both directions")
{
	int pair[2];
	char got[16];
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	CHECK(write(pair[0], "to one", 6) == 6 && write(pair[1], "to zero", 7) == 7);
	ready();
	CHECK(read(pair[1], got, 16) == 6 && !memcmp(got, "to one", 6));
	CHECK(read(pair[0], got, 16) == 7 && !memcmp(got, "to zero", 7));
	CHECK(write(pair[0], "x", 1) == 1 && read(pair[1], got, 16) == 1);
}

PROGRAM(unix_pair_packets, ANYONE, "datagrams and packets keep their bounds")
{
	int datagrams[2], packets[2];
	char got[16];
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets) == 0);
	ready();
	CHECK(write(datagrams[0], "ab", 2) == 2 && write(datagrams[0], "cde", 3) == 3);
	CHECK(read(datagrams[1], got, 16) == 2 && read(datagrams[1], got, 16) == 3);
	CHECK(write(packets[1], "f", 1) == 1 && write(packets[1], "gh", 2) == 2);
	CHECK(read(packets[0], got, 16) == 1 && read(packets[0], got, 16) == 2);
}

PROGRAM(unix_pair_halves, ANYONE, "half-closed pairs and one whose peer is gone")
{
	int half[2], gone[2];
	char got[16];
	signal(SIGPIPE, SIG_IGN);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, half) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, gone) == 0);
	CHECK(write(half[0], "last", 4) == 4 && shutdown(half[0], SHUT_WR) == 0);
	CHECK(write(gone[0], "words", 5) == 5);
	close(gone[0]);
	ready();
	CHECK(read(half[1], got, 16) == 4 && read(half[1], got, 16) == 0);
	CHECK(write(half[1], "y", 1) == 1 && read(half[0], got, 16) == 1);
	CHECK(write(half[0], "n", 1) == -1 && errno == EPIPE);
	CHECK(read(gone[1], got, 16) == 5 && read(gone[1], got, 16) == 0);
	CHECK(write(gone[1], "n", 1) == -1 && errno == EPIPE);
}

static volatile sig_atomic_t told_of;

static void on_io(int signal, siginfo_t *info, void *context)
{
	(void)context;
	told_of = signal;
	(void)info;
}

PROGRAM(unix_pair_async, ANYONE, "a child is told of I/O by a signal (O_ASYNC, F_SETOWN, F_SETSIG)")
{
	int pair[2], more[2];
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, more) == 0);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		struct sigaction action = {.sa_sigaction = on_io, .sa_flags = SA_SIGINFO};
		CHECK(sigaction(SIGIO, &action, NULL) == 0 && sigaction(SIGRTMIN + 4, &action, NULL) == 0);
		board_post(b, 0);
		while (told_of != SIGIO)
			usleep(1000);
		board_post(b, 1);
		while (told_of != SIGRTMIN + 4)
			usleep(1000);
		_exit(16);
	}
	board_await(b, 0, 1);
	CHECK(fcntl(pair[1], F_SETOWN, child) == 0 && fcntl(pair[1], F_SETFL, O_ASYNC | O_NONBLOCK) == 0);
	CHECK(fcntl(more[1], F_SETOWN, child) == 0 && fcntl(more[1], F_SETSIG, SIGRTMIN + 4) == 0 && fcntl(more[1], F_SETFL, O_ASYNC) == 0);
	ready();
	CHECK(fcntl(pair[1], F_GETOWN) == child && fcntl(more[1], F_GETSIG) == SIGRTMIN + 4);
	CHECK(fcntl(pair[1], F_GETFL) == (O_RDWR | O_ASYNC | O_NONBLOCK));
	CHECK(write(pair[0], "x", 1) == 1);
	board_await(b, 1, 1);
	CHECK(write(more[0], "x", 1) == 1);
	CHECK(child_exits(child) == 16);
}

static struct sockaddr_un unix_name(const char *path, int abstract)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path + abstract, path);
	return a;
}

static void unix_listener(const char *path, int abstract)
{
	struct sockaddr_un a = unix_name(path, abstract);
	socklen_t length = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(path) + !abstract;
	int listener = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
	CHECK(bind(listener, (void *)&a, length) == 0 && listen(listener, 5) == 0);
	ready();
	int client = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
	CHECK(connect(client, (void *)&a, length) == 0);
	int server = SYS(accept(listener, NULL, NULL));
	char c;
	CHECK(write(client, "c", 1) == 1 && read(server, &c, 1) == 1 && c == 'c');
	struct ucred who;
	socklen_t size = sizeof who;
	CHECK(getsockopt(client, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.pid == 1 && who.uid == getuid());
}

PROGRAM(unix_listening, ANYONE, "a listening unix socket in the file system") { unix_listener("/tmp/listen.sock", 0); }
PROGRAM(unix_abstract, ANYONE, "a listening unix socket with an abstract name") { unix_listener("mig-abstract", 1); }

PROGRAM(unix_connected, ANYONE, "an accepted connection within the container, with unread data")
{
	struct sockaddr_un a = unix_name("/tmp/connected.sock", 0);
	int listener = SYS(socket(AF_UNIX, SOCK_STREAM, 0)), client = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
	CHECK(bind(listener, (void *)&a, sizeof a) == 0 && listen(listener, 5) == 0);
	CHECK(connect(client, (void *)&a, sizeof a) == 0);
	int server = SYS(accept(listener, NULL, NULL));
	close(listener);
	CHECK(write(client, "unread", 6) == 6);
	ready();
	char got[16];
	CHECK(read(server, got, 16) == 6 && !memcmp(got, "unread", 6));
	CHECK(write(server, "back", 4) == 4 && read(client, got, 16) == 4);
}

static int tcp_listener(int family, int port, int flags)
{
	int fd = SYS(socket(family, SOCK_STREAM | flags, 0)), on = 1;
	CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
	if (family == AF_INET)
		CHECK(bind(fd, (void *)&a4, sizeof a4) == 0);
	else
		CHECK(bind(fd, (void *)&a6, sizeof a6) == 0);
	CHECK(listen(fd, 7) == 0);
	return fd;
}

static void tcp_talk(int listener, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int client = SYS(socket(AF_INET, SOCK_STREAM, 0));
	CHECK(connect(client, (void *)&a, sizeof a) == 0);
	struct pollfd p = {.fd = listener, .events = POLLIN};
	CHECK(poll(&p, 1, 5000) == 1);
	int server = SYS(accept(listener, NULL, NULL));
	char c;
	CHECK(write(client, "t", 1) == 1 && read(server, &c, 1) == 1 && c == 't');
}

PROGRAM(tcp_listening, ANYONE, "a listening TCP socket with options")
{
	int fd = tcp_listener(AF_INET, 7001, SOCK_NONBLOCK), value = 1;
	CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value) == 0);
	CHECK(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value) == 0);
	value = 77;
	CHECK(setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, sizeof value) == 0);
	ready();
	socklen_t size = sizeof value;
	CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &size) == 0 && value);
	CHECK(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &size) == 0 && value);
	CHECK(getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, &size) == 0 && value == 77);
	CHECK(getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, &size) == 0 && value);
	CHECK(accept(fd, NULL, NULL) == -1 && errno == EAGAIN);
	tcp_talk(fd, 7001);
}

PROGRAM(tcp_listening_dual, ANYONE, "a listening IPv6 socket that takes IPv4 too, watched by epoll")
{
	int fd = tcp_listener(AF_INET6, 7002, 0), epoll = SYS(epoll_create1(0));
	struct epoll_event e = {.events = EPOLLIN, .data.u32 = 8};
	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == 0);
	ready();
	CHECK(epoll_wait(epoll, &e, 1, 0) == 0);
	tcp_talk(fd, 7002);
}

PROGRAM(tcp_bound, ANYONE, "a TCP socket that is bound and does not listen yet, and a fresh one")
{
	int fd = SYS(socket(AF_INET, SOCK_STREAM, 0)), fresh = SYS(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7003), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	CHECK(bind(fd, (void *)&a, sizeof a) == 0);
	ready();
	CHECK(listen(fd, 1) == 0);
	tcp_talk(fd, 7003);
	close(fresh);
}

PROGRAM(tcp_two_listeners, ANYONE, "two listeners on one port (SO_REUSEPORT)")
{
	int one = SYS(socket(AF_INET, SOCK_STREAM, 0)), two = SYS(socket(AF_INET, SOCK_STREAM, 0)), on = 1;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7004), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	CHECK(setsockopt(one, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 && setsockopt(two, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
	CHECK(bind(one, (void *)&a, sizeof a) == 0 && listen(one, 5) == 0);
	CHECK(bind(two, (void *)&a, sizeof a) == 0 && listen(two, 5) == 0);
	ready();
	int seen = 0;
	for (int i = 0; i < 64 && seen != 3; i++) {
		int client = SYS(socket(AF_INET, SOCK_STREAM, 0));
		CHECK(connect(client, (void *)&a, sizeof a) == 0);
		struct pollfd p[2] = {{.fd = one, .events = POLLIN}, {.fd = two, .events = POLLIN}};
		CHECK(poll(p, 2, 5000) >= 1);
		for (int j = 0; j < 2; j++)
			if (p[j].revents & POLLIN) {
				seen |= 1 << j;
				close(SYS(accept(p[j].fd, NULL, NULL)));
			}
		close(client);
	}
	CHECK(seen == 3);
}

PROGRAM(udp_bound, ANYONE, "a bound UDP socket with options")
{
	int fd = SYS(socket(AF_INET, SOCK_DGRAM, 0)), on = 1;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7005), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	CHECK(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) == 0);
	CHECK(bind(fd, (void *)&a, sizeof a) == 0);
	ready();
	socklen_t size = sizeof on;
	CHECK(getsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, &size) == 0 && on);
	int sender = SYS(socket(AF_INET, SOCK_DGRAM, 0));
	CHECK(sendto(sender, "u", 1, 0, (void *)&a, sizeof a) == 1);
	char c;
	CHECK(recv(fd, &c, 1, 0) == 1 && c == 'u');
}

PROGRAM(udp_connected, ANYONE, "a connected UDP socket")
{
	int server = SYS(socket(AF_INET, SOCK_DGRAM, 0)), client = SYS(socket(AF_INET, SOCK_DGRAM, 0));
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7006), .sin_addr = {htonl(INADDR_LOOPBACK)}}, from;
	socklen_t size = sizeof from;
	CHECK(bind(server, (void *)&a, sizeof a) == 0 && connect(client, (void *)&a, sizeof a) == 0);
	struct sockaddr_in was, is;
	CHECK(getsockname(client, (void *)&was, &size) == 0);
	ready();
	CHECK(getsockname(client, (void *)&is, &size) == 0 && is.sin_port == was.sin_port);
	CHECK(send(client, "v", 1, 0) == 1);
	char c;
	CHECK(recvfrom(server, &c, 1, 0, (void *)&from, &size) == 1 && c == 'v' && from.sin_port == was.sin_port);
}

PROGRAM(tcp_accept_blocked, ANYONE, "a child that is blocked in accept")
{
	int fd = tcp_listener(AF_INET, 7007, 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		int server = SYS(accept(fd, NULL, NULL));
		char c;
		CHECK(read(server, &c, 1) == 1 && c == 'w');
		_exit(6);
	}
	usleep(20000);
	ready();
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7007), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int client = SYS(socket(AF_INET, SOCK_STREAM, 0));
	CHECK(connect(client, (void *)&a, sizeof a) == 0 && write(client, "w", 1) == 1);
	CHECK(child_exits(child) == 6);
}

PROGRAM(udp_unread, ANYONE, "datagrams that nobody has read, with their senders")
{
	int fd = SYS(socket(AF_INET, SOCK_DGRAM, 0)), sender = SYS(socket(AF_INET, SOCK_DGRAM, 0));
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7008), .sin_addr = {htonl(INADDR_LOOPBACK)}}, own, from;
	socklen_t size = sizeof own;
	CHECK(bind(fd, (void *)&a, sizeof a) == 0);
	CHECK(sendto(sender, "one", 3, 0, (void *)&a, sizeof a) == 3 && sendto(sender, "three", 5, 0, (void *)&a, sizeof a) == 5);
	CHECK(getsockname(sender, (void *)&own, &size) == 0);
	ready();
	char got[16];
	size = sizeof from;
	CHECK(recvfrom(fd, got, sizeof got, 0, (void *)&from, &size) == 3 && !memcmp(got, "one", 3) && from.sin_port == own.sin_port);
	CHECK(recv(fd, got, sizeof got, 0) == 5 && !memcmp(got, "three", 5));
	CHECK(recv(fd, got, sizeof got, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

PROGRAM(udp_multicast, ANYONE, "a member of a multicast group")
{
	int fd = SYS(socket(AF_INET, SOCK_DGRAM, 0)), value = 7;
	struct ip_mreqn group = {.imr_multiaddr = {htonl(0xe0010203)}, .imr_address = {htonl(INADDR_LOOPBACK)}};
	CHECK(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) == 0);
	CHECK(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &value, sizeof value) == 0);
	ready();
	CHECK(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) == -1 && errno == EADDRINUSE);
	CHECK(setsockopt(fd, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group) == 0);
	socklen_t size = sizeof value;
	CHECK(getsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &value, &size) == 0 && (value & 0xff) == 7);
}
