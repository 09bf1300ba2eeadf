// SPDX-License-Identifier: Apache-2.0
//
// Sockets that listen, by name and by port, and their options. The program
// connects to each.
// usage: listeners DIR
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "kerneltest.h"

static int path, relative, abstract, gone, dgram, tcp4, tcp6, fresh, many = -1, idle = -1, ends[2];
static struct sockaddr_un at_path, at_abstract, at_dgram;
static struct sockaddr_in a4;
static struct sockaddr_in6 a6, at_many;
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static int option(int fd, int level, int name) {
  int v = -1;
  socklen_t n = sizeof v;
  CHECK(getsockopt(fd, level, name, &v, &n) == 0);
  return v;
}

static void greet(int listener, const void *addr, socklen_t len, int family) {
  char b[8];
  int c = socket(family, SOCK_STREAM, 0);
  CHECK(c >= 0 && connect(c, addr, len) == 0, "family %d", family);
  CHECK(send(c, "hi", 2, 0) == 2); // before: TCP_DEFER_ACCEPT waits for it
  int s = accept(listener, 0, 0);
  CHECK(s >= 0 && recv(s, b, 8, 0) == 2);
  close(c), close(s);
}

static struct sockaddr_un name(const char *s) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strcpy(a.sun_path, s);
  return a;
}

static socklen_t abstract_len(void) { return offsetof(struct sockaddr_un, sun_path) + 9; }

static void verify(void) {
  greet(path, &at_path, sizeof at_path, AF_UNIX);
  struct sockaddr_un r = name("relative");
  greet(relative, &r, sizeof r, AF_UNIX);
  greet(abstract, &at_abstract, abstract_len(), AF_UNIX);
  greet(tcp4, &a4, sizeof a4, AF_INET);
  greet(tcp6, &a6, sizeof a6, AF_INET6);
  if (many >= 0) { // MPTCP, which falls back to TCP where it is not asked for
    greet(many, &at_many, sizeof at_many, AF_INET6);
    for (int i = 0; i < 2; i++) { // accepted from it before
      char b[8];
      CHECK(send(ends[i], "there", 5, 0) == 5 && recv(ends[!i], b, 8, 0) == 5);
    }
    CHECK(option(many, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_MPTCP && option(idle, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_MPTCP);
    CHECK(option(many, SOL_SOCKET, SO_KEEPALIVE) == 1 && option(many, SOL_SOCKET, SO_REUSEADDR) == 1);
  }
  struct stat st;
  CHECK(stat("listen", &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 07777) == 0751 && st.st_uid == 33 && st.st_gid == 44, "%o %d", st.st_mode, st.st_uid);
  CHECK(stat("gone", &st) == 0 && S_ISREG(st.st_mode), "another file has the name");
  struct sockaddr_un got;
  socklen_t n = sizeof got;
  CHECK(getsockname(gone, (void *)&got, &n) == 0 && !strcmp(got.sun_path + strlen(got.sun_path) - 5, "/gone"));
  int c = socket(AF_UNIX, SOCK_DGRAM, 0);
  CHECK(sendto(c, "dgram", 5, 0, (void *)&at_dgram, sizeof at_dgram) == 5);
  char b[8];
  CHECK(recv(dgram, b, 8, 0) == 5);
  close(c);
  CHECK(option(tcp4, SOL_SOCKET, SO_REUSEADDR) == 0);
  CHECK(option(tcp4, SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(option(tcp4, IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(option(tcp4, IPPROTO_TCP, TCP_KEEPIDLE) == 77);
  CHECK(option(tcp4, IPPROTO_TCP, TCP_DEFER_ACCEPT) > 0);
  CHECK(option(tcp4, SOL_SOCKET, SO_RCVBUF) == 40000);
  CHECK(option(tcp6, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
  CHECK(option(tcp6, SOL_SOCKET, SO_REUSEPORT) == 1);
  struct tcp_info i;
  n = sizeof i;
  CHECK(getsockopt(tcp4, IPPROTO_TCP, TCP_INFO, &i, &n) == 0 && i.tcpi_state == TCP_LISTEN && i.tcpi_sacked == 37, "%d", i.tcpi_sacked);
  CHECK((fcntl(tcp4, F_GETFL) & O_NONBLOCK) == 0 && (fcntl(fresh, F_GETFL) & O_NONBLOCK));
  CHECK(connect(fresh, (void *)&a6, sizeof a6) < 0 && errno == EAFNOSUPPORT);
  close(fresh);
  MUST((fresh = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) >= 0);
}

static void set(int fd, int level, int name, int v) { MUST(setsockopt(fd, level, name, &v, sizeof v) == 0); }

int main(int argc, char **argv) {
  MUST(argc == 2 && chdir(argv[1]) == 0);
  char s[256];
  snprintf(s, sizeof s, "%s/listen", argv[1]);
  at_path = name(s);
  MUST((path = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0 && bind(path, (void *)&at_path, sizeof at_path) == 0 && listen(path, 5) == 0);
  MUST(chmod(s, 0751) == 0 && chown(s, 33, 44) == 0);
  struct sockaddr_un r = name("relative");
  MUST((relative = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0 && bind(relative, (void *)&r, sizeof r) == 0 && listen(relative, 5) == 0);
  at_abstract = name("");
  snprintf(at_abstract.sun_path + 1, 20, "mig%05d", (int)(getpid() + (long)at_path.sun_path[20] * 7));
  memcpy(at_abstract.sun_path + 1, argv[1] + strlen(argv[1]) - 8, 8); // unlike that of a test beside
  MUST((abstract = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0 && bind(abstract, (void *)&at_abstract, abstract_len()) == 0 && listen(abstract, 5) == 0);
  snprintf(s, sizeof s, "%s/gone", argv[1]);
  r = name(s);
  MUST((gone = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0 && bind(gone, (void *)&r, sizeof r) == 0 && listen(gone, 5) == 0);
  MUST(unlink(s) == 0 && close(open(s, O_CREAT | O_WRONLY, 0600)) == 0);
  snprintf(s, sizeof s, "%s/dgram", argv[1]);
  at_dgram = name(s);
  MUST((dgram = socket(AF_UNIX, SOCK_DGRAM, 0)) >= 0 && bind(dgram, (void *)&at_dgram, sizeof at_dgram) == 0);
  a4.sin_family = AF_INET, a4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  MUST((tcp4 = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
  set(tcp4, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(tcp4, IPPROTO_TCP, TCP_NODELAY, 1);
  set(tcp4, IPPROTO_TCP, TCP_KEEPIDLE, 77);
  set(tcp4, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
  set(tcp4, SOL_SOCKET, SO_RCVBUF, 20000);
  socklen_t n = sizeof a4;
  MUST(bind(tcp4, (void *)&a4, n) == 0 && getsockname(tcp4, (void *)&a4, &n) == 0 && listen(tcp4, 37) == 0);
  a6.sin6_family = AF_INET6, a6.sin6_addr = in6addr_loopback;
  MUST((tcp6 = socket(AF_INET6, SOCK_STREAM, 0)) >= 0);
  set(tcp6, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  set(tcp6, SOL_SOCKET, SO_REUSEPORT, 1);
  n = sizeof a6;
  MUST(bind(tcp6, (void *)&a6, n) == 0 && getsockname(tcp6, (void *)&a6, &n) == 0 && listen(tcp6, 8) == 0);
  MUST((fresh = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) >= 0);
  if ((many = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_MPTCP)) >= 0) { // the kernel has it
    set(many, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(many, SOL_SOCKET, SO_REUSEADDR, 1);
    at_many = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    n = sizeof at_many;
    MUST(bind(many, (void *)&at_many, n) == 0 && getsockname(many, (void *)&at_many, &n) == 0 && listen(many, 9) == 0);
    MUST(fcntl(many, F_SETFL, 0) == 0);
    MUST((ends[0] = socket(AF_INET6, SOCK_STREAM, 0)) >= 0 && connect(ends[0], (void *)&at_many, n) == 0);
    MUST((ends[1] = accept(many, 0, 0)) >= 0);
    MUST((idle = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP)) >= 0);
  }
  serve(verify);
}
