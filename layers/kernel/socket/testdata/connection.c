// SPDX-License-Identifier: Apache-2.0
//
// A TCP connection. With the policy tcp=close it has ended after a restore:
// "connection closed" looks for that from its second verification on.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include "kerneltest.h"

static int listener, client, server, expect_closed;

static void verify(void) {
  char b[8];
  static int round;
  if (round++ == 0 || !expect_closed) {
    CHECK(send(client, "x", 1, 0) == 1 && recv(server, b, 8, 0) == 1);
    return;
  }
  int fds[] = {client, server};
  for (int i = 0; i < 2; i++) {
    struct pollfd p = {.fd = fds[i], .events = POLLIN | POLLOUT | POLLRDHUP};
    CHECK(poll(&p, 1, 0) == 1 && (p.revents & (POLLIN | POLLRDHUP | POLLHUP)) == (POLLIN | POLLRDHUP | POLLHUP), "%x", p.revents);
    CHECK(recv(fds[i], b, 8, 0) == 0);
    CHECK(send(fds[i], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    CHECK(getpeername(fds[i], (void *)&a, &n) < 0 && errno == ENOTCONN);
    int v;
    n = sizeof v;
    CHECK(getsockopt(fds[i], SOL_SOCKET, SO_ERROR, &v, &n) == 0 && v == 0);
  }
}

int main(int argc, char **argv) {
  expect_closed = argc > 1;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  MUST((listener = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
  // As every server does: its connections outlive it for a minute.
  MUST(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) == 0);
  MUST(bind(listener, (void *)&a, n) == 0);
  MUST(getsockname(listener, (void *)&a, &n) == 0 && listen(listener, 1) == 0);
  MUST((client = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && connect(client, (void *)&a, n) == 0);
  MUST((server = accept(listener, 0, 0)) >= 0);
  serve(verify);
}
