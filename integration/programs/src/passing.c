/* SPDX-License-Identifier: Apache-2.0 */

/* What is on its way in unix sockets, beside data. */
#include "programs.h"

#include <netinet/in.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

enum { MOST = 8 };

/* send_with sends data with descriptors. */
static void send_with(int socket, const char *data, size_t length, const int *fds, int n)
{
	union {
		char buf[CMSG_SPACE(MOST * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(void *)data, length};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	CHECK(sendmsg(socket, &m, 0) == (ssize_t)length);
}

struct got {
	ssize_t length;
	int fds[MOST], n;
	struct ucred who;
	int has_who;
	struct sockaddr_un from;
	socklen_t from_length;
};

static struct got receive_with(int socket, char *data, size_t length)
{
	struct got g = {0};
	union {
		char buf[512];
		struct cmsghdr align;
	} control;
	struct iovec iov = {data, length};
	struct msghdr m = {.msg_name = &g.from, .msg_namelen = sizeof g.from, .msg_iov = &iov, .msg_iovlen = 1,
			   .msg_control = &control, .msg_controllen = sizeof control};
	g.length = SYS(recvmsg(socket, &m, MSG_DONTWAIT));
	g.from_length = m.msg_namelen;
	CHECK(!(m.msg_flags & (MSG_CTRUNC | MSG_TRUNC)));
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			g.n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(g.fds, CMSG_DATA(c), g.n * sizeof(int));
		}
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&g.who, CMSG_DATA(c), sizeof g.who);
			g.has_who = 1;
		}
	}
	return g;
}

static void pair_of(int type, int pair[2]) { CHECK(socketpair(AF_UNIX, type, 0, pair) == 0); }

static void no_more(int socket)
{
	char c;
	CHECK(recv(socket, &c, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

PROGRAM(scm_files, ANYONE, "descriptors in flight: a file at an offset, a removed one, a pipe, one that the program has, too")
{
	int pair[2], fds[5], pipe_ends[2];
	char got[64];
	pair_of(SOCK_STREAM, pair);
	int file = SYS(open("/tmp/flight", O_RDWR | O_CREAT, 0600)), gone = SYS(open("/tmp/flight-gone", O_RDWR | O_CREAT, 0600));
	CHECK(write(file, "0123456789", 10) == 10 && lseek(file, 4, SEEK_SET) == 4);
	CHECK(write(gone, "ghost", 5) == 5 && lseek(gone, 0, SEEK_SET) == 0 && unlink("/tmp/flight-gone") == 0);
	CHECK(pipe(pipe_ends) == 0 && write(pipe_ends[1], "in the pipe", 11) == 11);
	int kept = SYS(dup(file));
	memcpy(fds, (int[]){file, gone, pipe_ends[0], pipe_ends[1], file}, sizeof fds);
	CHECK(write(pair[0], "before ", 7) == 7);
	send_with(pair[0], "with", 4, fds, 5);
	CHECK(write(pair[0], " behind", 7) == 7);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	ready();
	CHECK(fcntl(file, F_GETFD) == -1 && fcntl(pipe_ends[1], F_GETFD) == -1);
	struct got g = receive_with(pair[1], got, sizeof got);
	CHECK(g.length == 11 && !memcmp(got, "before with", 11) && g.n == 5);
	CHECK(read(pair[1], got, sizeof got) == 7 && !memcmp(got, " behind", 7));
	CHECK(read(g.fds[0], got, 2) == 2 && !memcmp(got, "45", 2));
	CHECK(read(kept, got, 2) == 2 && !memcmp(got, "67", 2) && read(g.fds[4], got, 2) == 2 && !memcmp(got, "89", 2));
	CHECK(read(g.fds[1], got, 64) == 5 && !memcmp(got, "ghost", 5));
	CHECK(read(g.fds[2], got, 64) == 11 && write(g.fds[3], "x", 1) == 1 && read(g.fds[2], got, 64) == 1);
}

PROGRAM(scm_stream_pieces, ANYONE, "descriptors in flight stay with their piece of a stream")
{
	int pair[2], a = SYS(eventfd(1, 0)), b = SYS(eventfd(2, 0));
	char piece[3000], got[8000];
	uint64_t value;
	pair_of(SOCK_STREAM, pair);
	fill(piece, sizeof piece, 5);
	CHECK(write(pair[0], piece, 1000) == 1000);
	send_with(pair[0], piece + 1000, 500, &a, 1);
	send_with(pair[0], piece + 1500, 700, &b, 1);
	CHECK(write(pair[0], piece + 2200, 800) == 800);
	close(a);
	close(b);
	ready();
	struct got g = receive_with(pair[1], got, 900);
	CHECK(g.length == 900 && g.n == 0);
	g = receive_with(pair[1], got + 900, 7000);
	CHECK(g.length == 600 && g.n == 1 && read(g.fds[0], &value, 8) == 8 && value == 1);
	g = receive_with(pair[1], got + 1500, 7000);
	CHECK(g.length == 700 && g.n == 1 && read(g.fds[0], &value, 8) == 8 && value == 2);
	g = receive_with(pair[1], got + 2200, 7000);
	CHECK(g.length == 800 && g.n == 0 && filled(got, sizeof piece, 5));
	no_more(pair[1]);
}

PROGRAM(scm_events, ANYONE, "descriptors in flight: an epoll that watches an eventfd, a timer, a listening socket")
{
	int pair[2];
	char got[8];
	uint64_t one = 1;
	pair_of(SOCK_SEQPACKET, pair);
	int counter = SYS(eventfd(0, EFD_NONBLOCK)), epoll = SYS(epoll_create1(0)), timer = SYS(timerfd_create(CLOCK_MONOTONIC, 0));
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 77};
	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &e) == 0);
	struct itimerspec soon = {.it_value = {.tv_nsec = 1000000}, .it_interval = {.tv_sec = 100}};
	CHECK(timerfd_settime(timer, 0, &soon, NULL) == 0);
	int listener = SYS(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7100), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	CHECK(bind(listener, (void *)&a, sizeof a) == 0 && listen(listener, 3) == 0);
	int fds[] = {counter, epoll, timer, listener};
	send_with(pair[0], "e", 1, fds, 4);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	ready();
	struct got g = receive_with(pair[1], got, sizeof got);
	CHECK(g.length == 1 && g.n == 4);
	CHECK(epoll_wait(g.fds[1], &e, 1, 0) == 0 && write(g.fds[0], &one, 8) == 8);
	CHECK(epoll_wait(g.fds[1], &e, 1, 0) == 1 && e.data.u64 == 77);
	CHECK(read(g.fds[2], &one, 8) == 8 && one == 1);
	int client = SYS(socket(AF_INET, SOCK_STREAM, 0));
	CHECK(connect(client, (void *)&a, sizeof a) == 0);
	int server = SYS(accept(g.fds[3], NULL, NULL));
	CHECK(write(client, "t", 1) == 1 && read(server, got, 8) == 1);
}

PROGRAM(scm_nested, ANYONE, "sockets in flight in sockets in flight, with data and a file at the bottom")
{
	int outer[2], middle[2], inner[2];
	char got[32];
	pair_of(SOCK_STREAM, outer);
	pair_of(SOCK_DGRAM, middle);
	pair_of(SOCK_STREAM, inner);
	int file = SYS(eventfd(9, 0));
	send_with(inner[0], "file", 4, &file, 1);
	send_with(middle[0], "inner", 5, inner, 2);
	send_with(outer[0], "middle", 6, middle, 2);
	for (int i = 0; i < 2; i++) {
		close(middle[i]);
		close(inner[i]);
	}
	close(file);
	ready();
	struct got m = receive_with(outer[1], got, sizeof got);
	CHECK(m.length == 6 && m.n == 2);
	struct got i = receive_with(m.fds[1], got, sizeof got);
	CHECK(i.length == 5 && i.n == 2);
	struct got f = receive_with(i.fds[1], got, sizeof got);
	uint64_t value;
	CHECK(f.length == 4 && f.n == 1 && read(f.fds[0], &value, 8) == 8 && value == 9);
	CHECK(write(m.fds[0], "x", 1) == 1 && read(m.fds[1], got, 1) == 1);
	CHECK(write(i.fds[1], "y", 1) == 1 && read(i.fds[0], got, 1) == 1);
}

PROGRAM(scm_own_queue, ANYONE, "a socket in its own queue, and two in each other's")
{
	int own[2], a[2], b[2];
	char got[8];
	pair_of(SOCK_STREAM, own);
	pair_of(SOCK_STREAM, a);
	pair_of(SOCK_STREAM, b);
	send_with(own[0], "self", 4, &own[1], 1);
	send_with(a[0], "b", 1, &b[1], 1);
	send_with(b[0], "a", 1, &a[1], 1);
	close(b[1]);
	ready();
	struct got g = receive_with(own[1], got, sizeof got);
	CHECK(g.length == 4 && g.n == 1);
	CHECK(write(own[0], "q", 1) == 1 && read(g.fds[0], got, 1) == 1 && *got == 'q');
	g = receive_with(a[1], got, sizeof got);
	CHECK(g.length == 1 && *got == 'b' && g.n == 1);
	g = receive_with(g.fds[0], got, sizeof got);
	CHECK(g.length == 1 && *got == 'a' && g.n == 1);
	CHECK(write(a[0], "r", 1) == 1 && read(g.fds[0], got, 1) == 1 && *got == 'r');
}

PROGRAM(scm_closed_peer, ANYONE, "descriptors and credentials from a peer that has closed its end, and a half-closed one")
{
	int gone[2], half[2], one = 1;
	char got[16];
	pair_of(SOCK_STREAM, gone);
	pair_of(SOCK_STREAM, half);
	int file = SYS(eventfd(4, 0));
	CHECK(setsockopt(half[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0);
	send_with(gone[0], "last", 4, &file, 1);
	send_with(half[0], "half", 4, &file, 1);
	CHECK(write(half[1], "plain", 5) == 5 && shutdown(half[0], SHUT_WR) == 0);
	close(gone[0]);
	close(file);
	ready();
	struct got g = receive_with(gone[1], got, sizeof got);
	CHECK(g.length == 4 && g.n == 1 && read(gone[1], got, 16) == 0);
	g = receive_with(half[1], got, sizeof got);
	CHECK(g.length == 4 && g.n == 1 && g.has_who && g.who.pid == getpid() && g.who.uid == getuid() && g.who.gid == getgid());
	CHECK(read(half[1], got, 16) == 0 && read(half[0], got, 16) == 5);
	CHECK(write(half[1], "y", 1) == 1 && read(half[0], got, 16) == 1);
}

PROGRAM(scm_credentials, ANYONE, "messages of the program, of a child that lives and of one that has ended tell who sent them")
{
	int stream[2], packet[2], one = 1;
	char got[16];
	pair_of(SOCK_STREAM, stream);
	pair_of(SOCK_SEQPACKET, packet);
	CHECK(write(stream[0], "early ", 6) == 6); /* nobody asks for credentials yet */
	CHECK(setsockopt(stream[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0);
	CHECK(setsockopt(packet[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0);
	struct board *b = board_new();
	CHECK(write(stream[0], "me ", 3) == 3 && write(packet[0], "me", 2) == 2);
	pid_t alive = SYS(fork());
	if (alive == 0) {
		CHECK(write(stream[0], "alive ", 6) == 6 && write(packet[0], "alive", 5) == 5);
		board_post(b, 0);
		board_await(b, 1, 1);
		_exit(0);
	}
	board_await(b, 0, 1);
	pid_t dead = SYS(fork());
	if (dead == 0) {
		CHECK(write(stream[0], "dead", 4) == 4 && write(packet[0], "dead", 4) == 4);
		_exit(0);
	}
	CHECK(child_exits(dead) == 0);
	ready();
	struct got g = receive_with(stream[1], got, sizeof got);
	CHECK(g.length == 6 && g.has_who && g.who.pid == 0);
	pid_t senders[] = {getpid(), alive, dead};
	ssize_t lengths[2][3] = {{3, 6, 4}, {2, 5, 4}};
	for (int i = 0; i < 6; i++) {
		g = receive_with(i < 3 ? stream[1] : packet[1], got, sizeof got);
		CHECK(g.length == lengths[i / 3][i % 3] && g.has_who);
		CHECK(g.who.pid == senders[i % 3] && g.who.uid == getuid() && g.who.gid == getgid());
	}
	board_post(b, 1);
	CHECK(child_exits(alive) == 0 && waitpid(-1, NULL, WNOHANG | __WALL) == -1);
}

static socklen_t name_of(struct sockaddr_un *a, const char *path)
{
	int abstract = *path == '@';
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	strcpy(a->sun_path + abstract, path + abstract);
	return offsetof(struct sockaddr_un, sun_path) + strlen(path) + !abstract;
}

static int datagram_at(const char *path)
{
	struct sockaddr_un a;
	int fd = SYS(socket(AF_UNIX, SOCK_DGRAM, 0));
	if (path)
		CHECK(bind(fd, (void *)&a, name_of(&a, path)) == 0);
	return fd;
}

static void named_datagrams(const char *server_path, const char *client_path, const char *gone_path)
{
	struct sockaddr_un to, client_name, gone_name;
	socklen_t size = name_of(&to, server_path), client_size = name_of(&client_name, client_path), gone_size = name_of(&gone_name, gone_path);
	int one = 1;
	char got[32];
	int server = datagram_at(server_path), client = datagram_at(client_path), anonymous = datagram_at(NULL), gone = datagram_at(gone_path);
	CHECK(setsockopt(server, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0);
	CHECK(sendto(client, "client", 6, 0, (void *)&to, size) == 6);
	CHECK(connect(anonymous, (void *)&to, size) == 0);
	send_with(anonymous, "nameless", 8, &one, 1);
	CHECK(sendto(gone, "gone", 4, 0, (void *)&to, size) == 4);
	close(gone);
	if (*gone_path == '/')
		CHECK(unlink(gone_path) == 0);
	/* The server takes nothing but from this client any more. */
	CHECK(connect(server, (void *)&client_name, client_size) == 0);
	CHECK(connect(client, (void *)&to, size) == 0 && write(client, "again", 5) == 5);
	ready();
	struct got g = receive_with(server, got, sizeof got);
	CHECK(g.length == 6 && !memcmp(got, "client", 6) && g.from_length == client_size && !memcmp(&g.from, &client_name, client_size));
	CHECK(g.has_who && g.who.pid == getpid() && g.who.uid == getuid());
	g = receive_with(server, got, sizeof got);
	CHECK(g.length == 8 && g.n == 1 && g.fds[0] > one && g.from_length <= sizeof(sa_family_t) + 6);
	g = receive_with(server, got, sizeof got);
	CHECK(g.length == 4 && g.from_length == gone_size && !memcmp(&g.from, &gone_name, gone_size));
	g = receive_with(server, got, sizeof got);
	CHECK(g.length == 5 && g.from_length == client_size);
	no_more(server);
	CHECK(write(server, "back", 4) == 4 && read(client, got, sizeof got) == 4);
	CHECK(sendto(anonymous, "no", 2, 0, (void *)&to, size) == -1 && errno == EPERM);
	if (*gone_path == '/')
		CHECK(access(gone_path, F_OK) == -1);
}

PROGRAM(datagrams_path, ANYONE, "unread datagrams of named sockets with their senders, one of them closed")
{
	named_datagrams("/tmp/server.sock", "/tmp/client.sock", "/tmp/gone.sock");
}

PROGRAM(datagrams_abstract, ANYONE, "the same with abstract names")
{
	named_datagrams("@server", "@client", "@gone");
}

PROGRAM(datagrams_removed, ANYONE, "unread datagrams of a socket whose name was removed, and of one that another has by now")
{
	struct sockaddr_un a;
	char got[16];
	int removed = datagram_at("/tmp/removed.sock"), replaced = datagram_at("/tmp/replaced.sock"), sender = datagram_at(NULL);
	CHECK(sendto(sender, "one", 3, 0, (void *)&a, name_of(&a, "/tmp/removed.sock")) == 3 && unlink("/tmp/removed.sock") == 0);
	CHECK(sendto(sender, "two", 3, 0, (void *)&a, name_of(&a, "/tmp/replaced.sock")) == 3 && unlink("/tmp/replaced.sock") == 0);
	int now = datagram_at("/tmp/replaced.sock");
	CHECK(sendto(sender, "three", 5, 0, (void *)&a, name_of(&a, "/tmp/replaced.sock")) == 5);
	CHECK(sendto(sender, "", 0, 0, (void *)&a, name_of(&a, "/tmp/replaced.sock")) == 0);
	ready();
	CHECK(recv(removed, got, 16, MSG_DONTWAIT) == 3 && recv(replaced, got, 16, MSG_DONTWAIT) == 3 && !memcmp(got, "two", 3));
	CHECK(recv(now, got, 16, MSG_DONTWAIT) == 5);
	CHECK(access("/tmp/removed.sock", F_OK) == -1 && access("/tmp/removed.sock.mig-unread", F_OK) == -1);
	CHECK(access("/tmp/replaced.sock", F_OK) == 0);
}

static void pending(int type, const char *path)
{
	struct sockaddr_un a;
	socklen_t size = name_of(&a, path);
	int listener = SYS(socket(AF_UNIX, type, 0)), client[3];
	char got[16];
	CHECK(bind(listener, (void *)&a, size) == 0 && listen(listener, 2) == 0);
	struct board *b = board_new();
	pid_t other = 0;
	for (int i = 0; i < 3; i++) {
		if (i == 1) { /* a child's */
			other = SYS(fork());
			if (other == 0) {
				int fd = SYS(socket(AF_UNIX, type, 0));
				CHECK(connect(fd, (void *)&a, size) == 0);
				board_post(b, 0);
				board_await(b, 1, 1);
				CHECK(write(fd, "1", 1) == 1 && read(fd, got, 16) == 2);
				_exit(11);
			}
			board_await(b, 0, 1);
			continue;
		}
		client[i] = SYS(socket(AF_UNIX, type | SOCK_NONBLOCK * (i == 2), 0));
		CHECK(connect(client[i], (void *)&a, size) == 0);
	}
	CHECK(shutdown(client[2], SHUT_WR) == 0);
	ready();
	board_post(b, 1);
	CHECK(fcntl(client[2], F_GETFL) & O_NONBLOCK && !(fcntl(client[0], F_GETFL) & O_NONBLOCK));
	CHECK(write(client[0], "0", 1) == 1);
	for (int i = 0; i < 3; i++) {
		int fd = SYS(accept(listener, NULL, NULL));
		struct ucred who;
		socklen_t length = sizeof who;
		CHECK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 && who.pid == (i == 1 ? other : 1) && who.uid == getuid());
		CHECK(read(fd, got, 16) == (i < 2) && (i == 2 || *got == '0' + i));
		CHECK(write(fd, "ok", 2) == 2);
		if (i != 1)
			CHECK(read(client[i], got, 16) == 2);
	}
	CHECK(child_exits(other) == 11);
	CHECK(fcntl(listener, F_SETFL, O_NONBLOCK) == 0 && accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
}

PROGRAM(unix_pending, ANYONE, "connections that nobody has accepted yet keep their order") { pending(SOCK_STREAM, "/tmp/pending.sock"); }
PROGRAM(unix_pending_packets, ANYONE, "the same of packets, with an abstract name") { pending(SOCK_SEQPACKET, "@pending"); }

REFUSED(refused_pending_data, ANYONE, "what was sent by it nobody can see", "data of a connection that nobody has accepted")
{
	struct sockaddr_un a;
	socklen_t size = name_of(&a, "/tmp/refused.sock");
	int listener = SYS(socket(AF_UNIX, SOCK_STREAM, 0)), client = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
	char got[8];
	CHECK(bind(listener, (void *)&a, size) == 0 && listen(listener, 2) == 0 && connect(client, (void *)&a, size) == 0);
	CHECK(write(client, "early", 5) == 5);
	ready();
	int server = SYS(accept(listener, NULL, NULL));
	CHECK(read(server, got, 8) == 5);
}
