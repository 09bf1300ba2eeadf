// SPDX-License-Identifier: Apache-2.0
//
// TCP connections whose two ends are both in the container: in every state that
// they can be in for long, with data on their way in both directions. Each
// verification looks at what was built before, and builds it anew.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include "kerneltest.h"

union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
};

// pair is a connection: its ends, and how much each has written and read.
struct pair {
  const char *name;
  int family, fd[2];
  const char *listen_at, *connect_to;
  unsigned long wrote[2], got[2];
};

static struct pair plain = {"plain", AF_INET, {0}, "127.0.0.1", "127.0.0.1"};
static struct pair six = {"six", AF_INET6, {0}, "::1", "::1"};
static struct pair mapped = {"mapped", AF_INET6, {0}, "::", "::ffff:127.0.0.1"};
static struct pair full = {"full", AF_INET, {0}, "127.0.0.1", "127.0.0.1"};
static struct pair half = {"half", AF_INET, {0}, "127.0.0.1", "127.0.0.1"};
static struct pair both = {"both", AF_INET, {0}, "127.0.0.1", "127.0.0.1"};
static struct pair gone = {"gone", AF_INET, {0}, "127.0.0.1", "127.0.0.1"};
static struct pair shut = {"shut", AF_INET, {0}, "127.0.0.1", "127.0.0.1"};
static struct pair corked = {"corked", AF_INET, {0}, "127.0.0.1", "127.0.0.1"};
static int listener, waiting;

static void address(union address *a, int family, const char *text) {
  memset(a, 0, sizeof *a);
  a->any.sa_family = family;
  MUST(inet_pton(family, text, family == AF_INET ? (void *)&a->v4.sin_addr : (void *)&a->v6.sin6_addr) == 1);
}

static int listen_on(int family, const char *text, union address *a) {
  int fd;
  socklen_t n = sizeof *a;
  address(a, family, text);
  MUST((fd = socket(family, SOCK_STREAM, 0)) >= 0);
  MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) == 0);
  MUST(bind(fd, &a->any, family == AF_INET ? sizeof a->v4 : sizeof a->v6) == 0);
  MUST(getsockname(fd, &a->any, &n) == 0 && listen(fd, 8) == 0);
  return fd;
}

static void connect_pair(struct pair *p) {
  union address at, to;
  int l = listen_on(p->family, p->listen_at, &at);
  address(&to, p->family, p->connect_to);
  if (p->family == AF_INET) to.v4.sin_port = at.v4.sin_port;
  else to.v6.sin6_port = at.v6.sin6_port;
  MUST((p->fd[0] = socket(p->family, SOCK_STREAM, 0)) >= 0);
  MUST(connect(p->fd[0], &to.any, p->family == AF_INET ? sizeof to.v4 : sizeof to.v6) == 0);
  MUST((p->fd[1] = accept(l, 0, 0)) >= 0);
  close(l);
  memset(p->wrote, 0, sizeof p->wrote);
  memset(p->got, 0, sizeof p->got);
}

static unsigned char byte(int end, unsigned long at) { return at * 7 + (at >> 8) * 13 + (at >> 16) * 17 + end; }

// put writes up to n bytes, without waiting.
static unsigned long put(struct pair *p, int end, unsigned long n) {
  unsigned char b[65536];
  unsigned long sum = 0;
  while (sum < n) {
    unsigned long part = n - sum < sizeof b ? n - sum : sizeof b;
    for (unsigned long i = 0; i < part; i++) b[i] = byte(end, p->wrote[end] + i);
    ssize_t k = send(p->fd[end], b, part, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (k < 0) {
      CHECK(errno == EAGAIN, "send");
      break;
    }
    p->wrote[end] += k, sum += k;
  }
  return sum;
}

// take reads everything that the other end has written.
static void take(struct pair *p, int end) {
  unsigned char b[65536];
  while (p->got[end] < p->wrote[!end]) {
    struct pollfd w = {.fd = p->fd[end], .events = POLLIN};
    if (poll(&w, 1, 5000) != 1) {
      fail("%s: %lu of %lu bytes came", p->name, p->got[end], p->wrote[!end]);
      return;
    }
    ssize_t k = recv(p->fd[end], b, sizeof b, MSG_DONTWAIT);
    CHECK(k > 0, "%s: recv gives %zd after %lu of %lu bytes", p->name, k, p->got[end], p->wrote[!end]);
    if (k <= 0) return;
    for (ssize_t i = 0; i < k; i++)
      if (b[i] != byte(!end, p->got[end] + i)) {
        fail("byte %lu is wrong", p->got[end] + i);
        return;
      }
    p->got[end] += k;
  }
}

static void is_end(struct pair *p, int end) {
  char b[8];
  struct pollfd w = {.fd = p->fd[end], .events = POLLIN | POLLRDHUP};
  CHECK(poll(&w, 1, 5000) == 1 && (w.revents & POLLRDHUP), "%s: no end of the stream at %d: %x", p->name, end, w.revents);
  CHECK(recv(p->fd[end], b, sizeof b, MSG_DONTWAIT) == 0);
}

static void is_open(struct pair *p, int end) {
  char b[8];
  CHECK(recv(p->fd[end], b, sizeof b, MSG_DONTWAIT) < 0 && errno == EAGAIN, "end %d of %s", end, p->name);
}

static int option(int fd, int level, int name) {
  int v = -1;
  socklen_t n = sizeof v;
  CHECK(getsockopt(fd, level, name, &v, &n) == 0);
  return v;
}

static void names(struct pair *p) {
  union address a, b;
  memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
  socklen_t n = sizeof a, m = sizeof b;
  CHECK(getsockname(p->fd[0], &a.any, &n) == 0 && getpeername(p->fd[1], &b.any, &m) == 0);
  CHECK(n == m && !memcmp(&a, &b, n), "the ends of a connection disagree on their names");
}

static void talk(struct pair *p) {
  for (int end = 0; end < 2; end++) take(p, end);
  for (int end = 0; end < 2; end++) is_open(p, end);
  for (int end = 0; end < 2; end++) put(p, end, 1000 + 300 * end);
  names(p);
}

static void renew(struct pair *p) {
  close(p->fd[0]), close(p->fd[1]);
  connect_pair(p);
}

static void build(void) {
  // One end has written until nothing more fits, the other has read nothing.
  put(&full, 0, 64 << 20);
  // One direction has ended, with data before the end; the other has not.
  put(&half, 0, 5000), put(&half, 1, 77);
  MUST(shutdown(half.fd[0], SHUT_WR) == 0);
  // Both directions have ended, one end knows of it only if it reads on.
  put(&both, 0, 3), put(&both, 1, 5);
  MUST(shutdown(both.fd[0], SHUT_WR) == 0);
  // The program has closed one end.
  put(&gone, 0, 4000);
  close(gone.fd[0]);
  // Nothing is read any more.
  MUST(shutdown(shut.fd[0], SHUT_RD) == 0);
  // A part of a segment is held back.
  MUST(setsockopt(corked.fd[0], SOL_TCP, TCP_CORK, &(int){1}, sizeof(int)) == 0);
  put(&corked, 0, 10);
  // Nobody has accepted a connection.
  union address a;
  socklen_t n = sizeof a;
  MUST(getsockname(listener, &a.any, &n) == 0);
  MUST((waiting = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && connect(waiting, &a.any, sizeof a.v4) == 0);
}

static void verify(void) {
  talk(&plain), talk(&six), talk(&mapped);
  CHECK(option(plain.fd[0], SOL_TCP, TCP_NODELAY) == 1 && option(plain.fd[1], SOL_TCP, TCP_NODELAY) == 0);
  CHECK(option(plain.fd[0], SOL_SOCKET, SO_KEEPALIVE) == 1 && option(plain.fd[0], SOL_TCP, TCP_KEEPIDLE) == 77);
  CHECK(option(plain.fd[0], SOL_TCP, TCP_USER_TIMEOUT) == 12345 && option(plain.fd[1], SOL_TCP, TCP_USER_TIMEOUT) == 0);
  CHECK(option(plain.fd[0], SOL_SOCKET, SO_REUSEADDR) == 0 && option(plain.fd[1], SOL_SOCKET, SO_REUSEADDR) == 1);
  char cc[16] = "";
  socklen_t n = sizeof cc;
  CHECK(getsockopt(plain.fd[0], SOL_TCP, TCP_CONGESTION, cc, &n) == 0 && !strcmp(cc, "reno"), "%s", cc);
  struct tcp_info info;
  n = sizeof info;
  CHECK(getsockopt(plain.fd[0], SOL_TCP, TCP_INFO, &info, &n) == 0);
  CHECK((info.tcpi_options & 7) == 7 && info.tcpi_snd_wscale > 0, "options %x, scale %d", info.tcpi_options, info.tcpi_snd_wscale);

  take(&full, 1);
  is_open(&full, 0), is_open(&full, 1);

  take(&half, 0), take(&half, 1);
  is_end(&half, 1), is_open(&half, 0);
  put(&half, 1, 40000), take(&half, 0);
  CHECK(send(half.fd[0], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
  close(half.fd[1]), is_end(&half, 0);
  half.fd[1] = -1, renew(&half);

  take(&both, 0), take(&both, 1), is_end(&both, 1);
  MUST(shutdown(both.fd[1], SHUT_WR) == 0);
  is_end(&both, 0), renew(&both);

  take(&gone, 1), is_end(&gone, 1);
  CHECK(send(gone.fd[1], "x", 1, MSG_NOSIGNAL) == 1, "the first write to a closed connection");
  gone.fd[0] = -1, renew(&gone);

  struct pollfd w = {.fd = shut.fd[0], .events = POLLIN | POLLRDHUP};
  CHECK(poll(&w, 1, 0) == 1 && (w.revents & POLLRDHUP));
  put(&shut, 0, 9), take(&shut, 1), renew(&shut);

  char b[16];
  CHECK(option(corked.fd[0], SOL_TCP, TCP_CORK) == 1);
  CHECK(setsockopt(corked.fd[0], SOL_TCP, TCP_CORK, &(int){0}, sizeof(int)) == 0);
  take(&corked, 1);

  int s = accept(listener, 0, 0);
  CHECK(s >= 0 && send(waiting, "hello", 5, 0) == 5 && recv(s, b, 5, MSG_WAITALL) == 5 && !memcmp(b, "hello", 5));
  CHECK(send(s, "back", 4, 0) == 4 && recv(waiting, b, 4, MSG_WAITALL) == 4 && !memcmp(b, "back", 4));
  close(s), close(waiting);

  build();
}

int main(void) {
  struct pair *all[] = {&plain, &six, &mapped, &full, &half, &both, &gone, &shut, &corked};
  for (unsigned i = 0; i < sizeof all / sizeof *all; i++) connect_pair(all[i]);
  union address a;
  listener = listen_on(AF_INET, "127.0.0.1", &a);
  MUST(setsockopt(plain.fd[0], SOL_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) == 0);
  MUST(setsockopt(plain.fd[0], SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int)) == 0);
  MUST(setsockopt(plain.fd[0], SOL_TCP, TCP_KEEPIDLE, &(int){77}, sizeof(int)) == 0);
  MUST(setsockopt(plain.fd[0], SOL_TCP, TCP_USER_TIMEOUT, &(int){12345}, sizeof(int)) == 0);
  MUST(setsockopt(plain.fd[0], SOL_TCP, TCP_CONGESTION, "reno", 4) == 0);
  build();
  serve(verify);
}
