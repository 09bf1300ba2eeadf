// SPDX-License-Identifier: Apache-2.0
//
// Pairs of unix sockets: unread data on both ends, messages and their limits,
// one end closed or shut down, options.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include "kerneltest.h"

static int st[2], dg[2], sp[2], widow[2], half[2], big[2], cross[2];
static uid_t made_by; // the group has the same number
enum { BIG = 150000 };

static void verify(void) {
  static char buf[BIG + 1];
  static int round;
  if (round++ == 0) {
    CHECK(recv(st[0], buf, 100, 0) == 5 && !memcmp(buf, "right", 5));
    CHECK(recv(st[1], buf, 100, 0) == 4 && !memcmp(buf, "left", 4));
    for (int i = 0; i < 30; i++) CHECK(recv(dg[0], buf, 100, MSG_DONTWAIT) == 1 + i && buf[0] == 'a' + i % 26, "message %d", i);
    CHECK(recv(sp[1], buf, 100, 0) == 3);
    CHECK(recv(sp[1], buf, 100, 0) == 1);
    CHECK(recv(widow[0], buf, 100, 0) == 4 && !memcmp(buf, "last", 4));
    long n = 0;
    while (n < BIG) {
      ssize_t r = recv(big[1], buf + n, BIG, MSG_DONTWAIT);
      CHECK(r > 0);
      if (r <= 0) return;
      n += r;
    }
    for (int i = 0; i < BIG; i++) CHECK(buf[i] == (char)(i % 253));
  }
  CHECK(recv(st[0], buf, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
  CHECK(recv(st[1], buf, 1, 0) < 0 && errno == EAGAIN, "nonblocking");
  CHECK(send(st[0], "ping", 4, 0) == 4 && recv(st[1], buf, 9, 0) == 4);
  CHECK(send(dg[1], "", 0, 0) == 0 && send(dg[1], "dg", 2, 0) == 2);
  CHECK(recv(dg[0], buf, 9, MSG_DONTWAIT) == 0 && recv(dg[0], buf, 9, MSG_DONTWAIT) == 2);
  CHECK(send(sp[0], "one", 3, 0) == 3 && send(sp[0], "2", 1, 0) == 1);
  CHECK(recv(sp[1], buf, 9, 0) == 3 && recv(sp[1], buf, 9, 0) == 1);
  CHECK(recv(widow[0], buf, 100, 0) == 0);
  CHECK(send(widow[0], "x", 1, 0) < 0 && errno == EPIPE);
  CHECK(recv(half[1], buf, 1, 0) == 0);
  CHECK(send(half[1], "still", 5, 0) == 5 && recv(half[0], buf, 9, 0) == 5);
  CHECK(send(half[0], "x", 1, 0) < 0 && errno == EPIPE);
  CHECK(send(cross[0], "c", 1, 0) == 1 && recv(cross[1], buf, 9, 0) == 1);
  struct timeval tv;
  socklen_t n = sizeof tv;
  CHECK(getsockopt(st[0], SOL_SOCKET, SO_RCVTIMEO, &tv, &n) == 0 && tv.tv_sec == 7);
  int v;
  n = sizeof v;
  CHECK(getsockopt(st[0], SOL_SOCKET, SO_SNDBUF, &v, &n) == 0 && v == 60000, "%d", v);
  int fresh = socket(AF_UNIX, SOCK_STREAM, 0), want;
  CHECK(getsockopt(fresh, SOL_SOCKET, SO_SNDBUF, &want, &n) == 0);
  CHECK(getsockopt(sp[0], SOL_SOCKET, SO_SNDBUF, &v, &n) == 0 && v == want, "%d, not %d", v, want);
  close(fresh);
  CHECK(getsockopt(sp[0], SOL_SOCKET, SO_PASSCRED, &v, &n) == 0 && v == 1);
  struct ucred c;
  n = sizeof c;
  CHECK(getsockopt(st[0], SOL_SOCKET, SO_PEERCRED, &c, &n) == 0 && c.pid == getpid() && c.uid == made_by && c.gid == made_by, "%d %d %d", c.pid, c.uid, c.gid);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  made_by = getuid();
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, st) == 0);
  MUST(send(st[1], "right", 5, 0) == 5 && send(st[0], "left", 4, 0) == 4);
  MUST(fcntl(st[1], F_SETFL, O_NONBLOCK) == 0);
  struct timeval tv = {7, 0};
  MUST(setsockopt(st[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0);
  int v = 30000;
  MUST(setsockopt(st[0], SOL_SOCKET, SO_SNDBUF, &v, sizeof v) == 0);
  MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, dg) == 0);
  char buf[64];
  for (int i = 0; i < 30; i++) {
    memset(buf, 'a' + i % 26, sizeof buf);
    MUST(send(dg[1], buf, 1 + i, MSG_DONTWAIT) == 1 + i);
  }
  MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sp) == 0);
  MUST(send(sp[0], "abc", 3, 0) == 3 && send(sp[0], "d", 1, 0) == 1);
  v = 1;
  MUST(setsockopt(sp[0], SOL_SOCKET, SO_PASSCRED, &v, sizeof v) == 0);
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, widow) == 0);
  MUST(send(widow[1], "last", 4, 0) == 4 && close(widow[1]) == 0);
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, half) == 0 && shutdown(half[0], SHUT_WR) == 0);
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, big) == 0);
  static char b[BIG];
  for (int i = 0; i < BIG; i++) b[i] = i % 253;
  MUST(send(big[0], b, BIG, MSG_DONTWAIT) == BIG);
  int x[2];
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, x) == 0);
  int t = dup(x[0]);
  MUST(dup2(x[1], x[0]) == x[0] && dup2(t, x[1]) == x[1] && close(t) == 0);
  cross[0] = x[0], cross[1] = x[1];
  serve(verify);
}
