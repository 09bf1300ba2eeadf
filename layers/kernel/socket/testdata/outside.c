// SPDX-License-Identifier: Apache-2.0
//
// TCP connections to the test, outside of the container, on a port of the
// loopback of IPv4 and one of IPv6: the test sends and receives what it likes.
// usage: outside PORT PORT6. Each verification expects on every connection what
// byte() says up to where the test has come, 100,000 bytes further each time, and
// writes as much. On one the test has ended its stream, on one the program has.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include "kerneltest.h"

enum { N = 8, STEP = 100000 };
static int fd[N];
static unsigned long round_, got[N];

static unsigned char byte(unsigned long at) { return at * 7 + (at >> 8) * 13 + (at >> 16) * 17; }

static void verify(void) {
  unsigned char b[65536];
  for (int i = 0; i < N; i++) {
    int other_ended = i % 4 == 1, ended = i % 4 == 2;
    unsigned long until = other_ended ? STEP : STEP * (round_ + 1);
    while (got[i] < until) {
      struct pollfd w = {.fd = fd[i], .events = POLLIN};
      if (poll(&w, 1, 8000) != 1) {
        fail("connection %d: %lu of %lu bytes came", i, got[i], until);
        return;
      }
      ssize_t k = recv(fd[i], b, until - got[i] < sizeof b ? until - got[i] : sizeof b, MSG_DONTWAIT);
      CHECK(k > 0, "connection %d: recv gives %zd after %lu", i, k, got[i]);
      if (k <= 0) return;
      for (ssize_t j = 0; j < k; j++, got[i]++)
        if (b[j] != byte(got[i])) {
          fail("connection %d: byte %lu is wrong", i, got[i]);
          return;
        }
    }
    if (other_ended) {
      struct pollfd w = {.fd = fd[i], .events = POLLIN};
      CHECK(poll(&w, 1, 5000) == 1 && recv(fd[i], b, 1, MSG_DONTWAIT) == 0, "connection %d: the end of the stream", i);
    }
    if (ended) {
      if (round_ == 0) CHECK(shutdown(fd[i], SHUT_WR) == 0);
      CHECK(send(fd[i], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
      continue;
    }
    for (unsigned long at = STEP * round_; at < STEP * (round_ + 1);) {
      unsigned long n = STEP * (round_ + 1) - at < sizeof b ? STEP * (round_ + 1) - at : sizeof b;
      for (unsigned long j = 0; j < n; j++) b[j] = byte(at + j);
      ssize_t k = send(fd[i], b, n, MSG_NOSIGNAL);
      CHECK(k > 0, "connection %d: send", i);
      if (k <= 0) return;
      at += k;
    }
  }
  round_++;
}

int main(int argc, char **argv) {
  for (int i = 0; i < N; i++) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(atoi(argv[1]))};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(atoi(argv[2]))};
    int six = i >= N / 2;
    MUST((fd[i] = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM, 0)) >= 0);
    MUST(connect(fd[i], six ? (void *)&v6 : (void *)&v4, six ? sizeof v6 : sizeof v4) == 0);
    MUST(send(fd[i], &(char){i}, 1, 0) == 1);
  }
  serve(verify);
}
