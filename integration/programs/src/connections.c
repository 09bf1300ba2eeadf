/* SPDX-License-Identifier: Apache-2.0 */

/* TCP connections of which both ends are in the container. */

#include "programs.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

struct connection {
	int client, server;
};

static struct connection connected(int family, int port)
{
	struct connection c;
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	void *address = family == AF_INET ? (void *)&a4 : (void *)&a6;
	socklen_t length = family == AF_INET ? sizeof a4 : sizeof a6;
	int listener = SYS(socket(family, SOCK_STREAM, 0)), on = 1;
	CHECK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
	CHECK(bind(listener, address, length) == 0 && listen(listener, 1) == 0);
	c.client = SYS(socket(family, SOCK_STREAM, 0));
	CHECK(connect(c.client, address, length) == 0);
	c.server = SYS(accept(listener, NULL, NULL));
	close(listener);
	return c;
}

static void passes(int from, int to, const char *text)
{
	char got[64];
	ssize_t n = strlen(text);
	CHECK(send(from, text, n, MSG_NOSIGNAL) == n);
	CHECK(recv(to, got, n, MSG_WAITALL) == n && !memcmp(got, text, n));
}

PROGRAM(tcp_idle, ANYONE, "an idle connection, IPv4")
{
	struct connection c = connected(AF_INET, 7101);
	ready();
	passes(c.client, c.server, "there");
	passes(c.server, c.client, "and back");
}

PROGRAM(tcp_idle_v6, ANYONE, "an idle connection, IPv6")
{
	struct connection c = connected(AF_INET6, 7102);
	ready();
	passes(c.client, c.server, "there");
	passes(c.server, c.client, "and back");
}

PROGRAM(tcp_unread, ANYONE, "unread data in both directions")
{
	struct connection c = connected(AF_INET, 7103);
	char out[20000], in[20000];
	fill(out, sizeof out, 1);
	CHECK(send(c.client, out, sizeof out, 0) == sizeof out);
	fill(out, sizeof out, 2);
	CHECK(send(c.server, out, sizeof out, 0) == sizeof out);
	ready();
	CHECK(recv(c.server, in, sizeof in, MSG_WAITALL) == sizeof in && filled(in, sizeof in, 1));
	CHECK(recv(c.client, in, sizeof in, MSG_WAITALL) == sizeof in && filled(in, sizeof in, 2));
	passes(c.client, c.server, "more");
}

PROGRAM(tcp_full, ANYONE, "a connection whose buffers are full")
{
	struct connection c = connected(AF_INET, 7104);
	static char chunk[65536], got[65536];
	long sent = 0;
	CHECK(fcntl(c.client, F_SETFL, O_NONBLOCK) == 0);
	for (;;) {
		fill(chunk, sizeof chunk, 3);
		ssize_t n = send(c.client, chunk, sizeof chunk, 0);
		if (n == -1) {
			CHECK(errno == EAGAIN);
			break;
		}
		sent += n;
	}
	ready();
	long received = 0;
	fill(chunk, sizeof chunk, 3);
	shutdown(c.client, SHUT_WR);
	for (;;) {
		ssize_t n = SYS(recv(c.server, got, sizeof got, 0));
		if (n == 0)
			break;
		/* Every write began at a multiple of the chunk, but for the last. */
		received += n;
	}
	CHECK(received == sent);
}

PROGRAM(tcp_half_closed, ANYONE, "one direction is closed, with data before the end")
{
	struct connection c = connected(AF_INET, 7105);
	char got[16];
	CHECK(send(c.client, "last", 4, 0) == 4 && shutdown(c.client, SHUT_WR) == 0);
	usleep(20000);
	ready();
	CHECK(recv(c.server, got, sizeof got, MSG_WAITALL) == 4 && !memcmp(got, "last", 4));
	CHECK(recv(c.server, got, sizeof got, 0) == 0);
	passes(c.server, c.client, "still");
}

PROGRAM(tcp_options, ANYONE, "options of a connection")
{
	struct connection c = connected(AF_INET, 7106);
	int on = 1, idle = 33, value;
	socklen_t size = sizeof value;
	CHECK(setsockopt(c.client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
	CHECK(setsockopt(c.server, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0);
	CHECK(setsockopt(c.server, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle) == 0);
	CHECK(setsockopt(c.server, IPPROTO_TCP, TCP_USER_TIMEOUT, &idle, sizeof idle) == 0);
	ready();
	CHECK(getsockopt(c.client, IPPROTO_TCP, TCP_NODELAY, &value, &size) == 0 && value);
	CHECK(getsockopt(c.server, SOL_SOCKET, SO_KEEPALIVE, &value, &size) == 0 && value);
	CHECK(getsockopt(c.server, IPPROTO_TCP, TCP_KEEPIDLE, &value, &size) == 0 && value == 33);
	CHECK(getsockopt(c.server, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &size) == 0 && value == 33);
	struct sockaddr_in a;
	size = sizeof a;
	CHECK(getpeername(c.client, (void *)&a, &size) == 0 && ntohs(a.sin_port) == 7106);
	passes(c.client, c.server, "x");
}

PROGRAM(tcp_blocked_reader, ANYONE, "a child that is blocked in recv")
{
	struct connection c = connected(AF_INET, 7107);
	pid_t child = SYS(fork());
	if (child == 0) {
		char got[4];
		/* A stop of the process ends MSG_WAITALL early, see recv(2); it must
		 * not end a call that has nothing yet. */
		for (int at = 0; at < 4; at++)
			CHECK(recv(c.server, got + at, 1, 0) == 1);
		CHECK(!memcmp(got, "wake", 4));
		_exit(3);
	}
	CHECK(send(c.client, "wa", 2, 0) == 2);
	usleep(20000);
	ready();
	CHECK(send(c.client, "ke", 2, 0) == 2);
	CHECK(child_exits(child) == 3);
}

static struct connection streams;

static void *reads(void *unused)
{
	(void)unused;
	static unsigned char got[10000];
	uint64_t at = 0;
	for (;;) {
		ssize_t n = SYS(recv(streams.server, got, sizeof got, 0));
		if (n == 0)
			return (void *)at;
		for (ssize_t i = 0; i < n; i++, at++)
			CHECK(got[i] == (unsigned char)(at * 31 >> 3));
	}
}

PROGRAM(storm_tcp, ANYONE, "a stream between two threads that never stops")
{
	pthread_t reader;
	streams = connected(AF_INET, 7108);
	CHECK(pthread_create(&reader, NULL, reads, NULL) == 0);
	announce();
	static unsigned char out[7777];
	uint64_t at = 0;
	while (!asked) {
		for (size_t i = 0; i < sizeof out; i++)
			out[i] = (at + i) * 31 >> 3;
		ssize_t n = send(streams.client, out, sizeof out, MSG_NOSIGNAL);
		if (n == -1 && errno == EINTR)
			continue;
		CHECK(n > 0);
		at += n;
	}
	CHECK(shutdown(streams.client, SHUT_WR) == 0);
	void *received;
	CHECK(pthread_join(reader, &received) == 0 && (uint64_t)received == at);
}
