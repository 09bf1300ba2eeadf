// SPDX-License-Identifier: Apache-2.0
//
// Bytes out of band that were received and not read, or read while what is before
// them was not. usage: urgent PORT; other ends are the test's, or with 0 the
// program's own. Each verification reads what came before and asks for it again.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include "kerneltest.h"

// kind is what a connection is sent: so many bytes, one out of band, so many more.
static struct kind {
  int before, behind, inline_, taken, ended;
} kinds[] = {
    {100, 200, 0, 0, 0}, {100, 200, 1, 0, 0}, {0, 200, 0, 0, 0}, {0, 200, 1, 0, 0}, {100, 0, 0, 0, 0}, {100, 0, 1, 0, 0}, {0, 0, 0, 0, 0},
    {0, 0, 1, 0, 0}, {100, 200, 0, 1, 0}, {0, 200, 0, 1, 0}, {40000, 50000, 0, 0, 0}, {100, 200, 0, 0, 1}, {100, 0, 1, 0, 1},
};
enum { CLOSE_WAIT = 8, N = sizeof kinds / sizeof *kinds };
static int fd[N], other[N], outside;

static void all(int i, char *b, int n) {
  for (int got = 0; got < n;) {
    struct pollfd w = {.fd = fd[i], .events = POLLIN};
    CHECK(poll(&w, 1, 5000) == 1, "connection %d: %d of %d bytes", i, got, n);
    ssize_t k = recv(fd[i], b + got, n - got, MSG_DONTWAIT);
    CHECK(k > 0, "connection %d: recv gives %zd after %d of %d", i, k, got, n);
    if (k <= 0) return;
    got += k;
  }
}

static void same(int i, const char *b, int n, char want) {
  for (int j = 0; j < n; j++)
    if (b[j] != want) {
      fail("connection %d: byte %d of %d is %d, not %c", i, j, n, b[j], want);
      return;
    }
}

static int at_mark(int i) {
  int v = -1;
  CHECK(ioctl(fd[i], SIOCATMARK, &v) == 0);
  return v;
}

static void take(int i) {
  struct kind *k = &kinds[i];
  static char b[1 << 20];
  if (k->before) {
    CHECK(at_mark(i) == 0, "connection %d", i);
    // recv stops before the mark, however much it is asked for.
    int got = 0;
    while (got < k->before) {
      ssize_t n = recv(fd[i], b + got, sizeof b - got, MSG_DONTWAIT);
      CHECK(n > 0, "connection %d: recv gives %zd after %d", i, n, got);
      if (n <= 0) return;
      got += n;
    }
    CHECK(got == k->before, "connection %d: %d bytes before the mark, not %d", i, got, k->before);
    same(i, b, k->before, 'a');
  }
  if (k->taken) // the mark stays in front of what is behind it
    CHECK(at_mark(i) == 1 && recv(fd[i], b, 1, MSG_OOB | MSG_DONTWAIT) < 0 && errno == EINVAL, "connection %d", i);
  else
    CHECK(at_mark(i) == 1, "connection %d is not at its mark", i);
  if (!k->inline_ && !k->taken) {
    struct pollfd w = {.fd = fd[i], .events = POLLPRI};
    CHECK(poll(&w, 1, 0) == 1 && (w.revents & POLLPRI), "connection %d", i);
    CHECK(recv(fd[i], b, 1, MSG_OOB | MSG_DONTWAIT) == 1 && *b == '!', "connection %d: byte %d", i, *b);
  }
  if (k->inline_) {
    all(i, b, 1);
    same(i, b, 1, '!');
  }
  all(i, b, k->behind);
  same(i, b, k->behind, 'z');
  CHECK(recv(fd[i], b, 1, MSG_DONTWAIT) == (k->ended ? 0 : -1), "connection %d: what is behind", i);
}

static void give(int i) {
  struct kind *k = &kinds[i];
  static char b[1 << 20];
  memset(b, 'a', k->before), b[k->before] = '!';
  CHECK(send(other[i], b, k->before + 1, MSG_OOB) == k->before + 1);
  memset(b, 'z', k->behind);
  CHECK(k->behind == 0 || send(other[i], b, k->behind, 0) == k->behind);
  if (k->ended) CHECK(shutdown(other[i], SHUT_WR) == 0);
}

// come waits until everything is there: TIOCINQ does not count what is behind a mark.
static void come(int i) {
  struct kind *k = &kinds[i];
  struct tcp_info info;
  for (int try = 0; try < 5000; try++) {
    socklen_t n = sizeof info;
    CHECK(getsockopt(fd[i], IPPROTO_TCP, TCP_INFO, &info, &n) == 0);
    if (info.tcpi_bytes_received >= (unsigned)(k->before + 1 + k->behind) && (!k->ended || info.tcpi_state == CLOSE_WAIT)) break;
    usleep(1000);
  }
  CHECK(info.tcpi_bytes_received >= (unsigned)(k->before + 1 + k->behind), "connection %d", i);
  char b;
  if (k->taken) CHECK(recv(fd[i], &b, 1, MSG_OOB) == 1 && b == '!', "connection %d", i);
}

static void join(int i, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
  socklen_t n = sizeof a;
  int l = -1;
  if (!port) {
    MUST((l = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && bind(l, (void *)&a, n) == 0 && listen(l, 1) == 0 && getsockname(l, (void *)&a, &n) == 0);
  }
  MUST((fd[i] = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && connect(fd[i], (void *)&a, sizeof a) == 0);
  if (!port) MUST((other[i] = accept(l, 0, 0)) >= 0 && close(l) == 0);
  MUST(setsockopt(fd[i], SOL_SOCKET, SO_OOBINLINE, &kinds[i].inline_, sizeof(int)) == 0);
}

static void verify(void) {
  for (int i = 0; i < N && !fails[0]; i++) {
    take(i);
    close(fd[i]);
    if (!outside) close(other[i]);
  }
}

static void build(int port) {
  for (int i = 0; i < N; i++) {
    join(i, port);
    char line[64];
    struct kind *k = &kinds[i];
    int n = snprintf(line, sizeof line, "%d %d %d\n", k->before, k->behind, k->ended);
    if (port) MUST(send(fd[i], line, n, 0) == n);
    else give(i);
  }
  for (int i = 0; i < N; i++) come(i);
}

static int port;
static void again(void) { verify(), build(port); }

int main(int argc, char **argv) {
  MUST(argc == 2);
  outside = port = atoi(argv[1]);
  build(port);
  serve(again);
}
