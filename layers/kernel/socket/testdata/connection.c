// SPDX-License-Identifier: Apache-2.0
//
// A TCP connection to somebody outside of the container, who listens on a port of
// the loopback and sends back what he gets. usage: connection PORT [closed]
// With the policy tcp=close it has ended after a restore: "closed" looks for
// that from its second verification on.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include "kerneltest.h"

static int client, expect_closed;

static void verify(void) {
  char b[8];
  static int round;
  if (round++ == 0 || !expect_closed) {
    CHECK(send(client, "x", 1, 0) == 1 && recv(client, b, 1, 0) == 1 && b[0] == 'x');
    return;
  }
  struct pollfd p = {.fd = client, .events = POLLIN | POLLOUT | POLLRDHUP};
  CHECK(poll(&p, 1, 0) == 1 && (p.revents & (POLLIN | POLLRDHUP | POLLHUP)) == (POLLIN | POLLRDHUP | POLLHUP), "%x", p.revents);
  CHECK(recv(client, b, 8, 0) == 0);
  CHECK(send(client, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
  struct sockaddr_in a;
  socklen_t n = sizeof a;
  CHECK(getpeername(client, (void *)&a, &n) < 0 && errno == ENOTCONN);
  int v;
  n = sizeof v;
  CHECK(getsockopt(client, SOL_SOCKET, SO_ERROR, &v, &n) == 0 && v == 0);
}

int main(int argc, char **argv) {
  expect_closed = argc > 2;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(atoi(argv[1]))};
  MUST((client = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && connect(client, (void *)&a, sizeof a) == 0);
  serve(verify);
}
