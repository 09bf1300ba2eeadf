// SPDX-License-Identifier: Apache-2.0
//
// Sockets that are refused by name. The one in question is descriptor 3.
// usage: refused raw|pending|backlog|signed|signed-listener|member|member6, or what
// is carried with a loss: unread|named|left
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "kerneltest.h"

static void verify(void) {}

// pending: the client has closed what nobody has accepted.
static void pending(void) {
  int l = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  MUST(l == 3 && bind(l, (void *)&a, sizeof a.sun_family) == 0 && listen(l, 3) == 0);
  socklen_t n = sizeof a;
  MUST(getsockname(l, (void *)&a, &n) == 0);
  int c = socket(AF_UNIX, SOCK_STREAM, 0);
  MUST(connect(c, (void *)&a, n) == 0 && close(c) == 0);
}

// backlog: the client has gone, its connection is still there to be accepted.
static void backlog(void) {
  int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  MUST(l == 3 && bind(l, (void *)&a, sizeof a) == 0 && listen(l, 3) == 0);
  socklen_t n = sizeof a;
  MUST(getsockname(l, (void *)&a, &n) == 0);
  MUST(connect(c, (void *)&a, n) == 0 && close(c) == 0);
}

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

// multipath: both ends speak MPTCP.
static void multipath(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  int c = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP), l = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
  MUST(c == 3 && bind(l, (void *)&a, n) == 0 && listen(l, 1) == 0 && getsockname(l, (void *)&a, &n) == 0);
  MUST(connect(c, (void *)&a, n) == 0 && accept(l, 0, 0) >= 0);
}

static void sign(int fd) {
  struct tcp_md5sig key = {.tcpm_keylen = 3, .tcpm_key = "key"};
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  memcpy(&key.tcpm_addr, &a, sizeof a);
  MUST(setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG, &key, sizeof key) == 0);
}

// signed: a listener with a key, and a connection with one.
static void signing(int listener, int client) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  MUST(socket(AF_INET, SOCK_STREAM, 0) == 3 && socket(AF_INET, SOCK_STREAM, 0) == 4);
  MUST(bind(listener, (void *)&a, n) == 0);
  sign(listener);
  MUST(listen(listener, 1) == 0 && getsockname(listener, (void *)&a, &n) == 0);
  sign(client);
  MUST(connect(client, (void *)&a, n) == 0 && accept(listener, 0, 0) == 5);
  if (client == 3) MUST(close(listener) == 0);
}

static int membership(int fd, int name) {
  struct ip_mreqn m = {.imr_ifindex = 1};
  inet_pton(AF_INET, "239.1.2.3", &m.imr_multiaddr);
  return setsockopt(fd, IPPROTO_IP, name, &m, sizeof m);
}

static void member(void) {
  MUST(socket(AF_INET, SOCK_DGRAM, 0) == 3);
  MUST(membership(3, IP_ADD_MEMBERSHIP) == 0);
}

static void member6(void) {
  struct ipv6_mreq m = {.ipv6mr_interface = 1};
  inet_pton(AF_INET6, "ff05::77", &m.ipv6mr_multiaddr);
  MUST(socket(AF_INET6, SOCK_DGRAM, 0) == 3);
  MUST(setsockopt(3, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m, sizeof m) == 0);
}

// left: a socket that is no member while another process may be.
static void left(void) {
  member();
  MUST(membership(3, IP_DROP_MEMBERSHIP) == 0);
}

static void unread(void) {
  MUST(socket(AF_INET, SOCK_DGRAM, 0) == 3 && setsockopt(3, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int)) == 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  MUST(bind(3, (void *)&a, sizeof a) == 0);
  socklen_t n = sizeof a;
  MUST(getsockname(3, (void *)&a, &n) == 0);
  MUST(sendto(3, "", 0, 0, (void *)&a, n) == 0);
}

static void named(void) {
  int l = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  MUST(bind(l, (void *)&a, sizeof a.sun_family) == 0 && listen(l, 3) == 0);
  socklen_t n = sizeof a;
  MUST(getsockname(l, (void *)&a, &n) == 0);
  int c = socket(AF_UNIX, SOCK_STREAM, 0);
  MUST(connect(c, (void *)&a, n) == 0);
  int s = accept(l, NULL, NULL);
  MUST(s >= 0 && close(l) == 0 && dup2(s, 3) == 3 && close(s) == 0);
}

int main(int argc, char **argv) {
  MUST(argc == 2);
  if (!strcmp(argv[1], "raw")) MUST(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) == 3);
  if (!strcmp(argv[1], "pending")) pending();
  if (!strcmp(argv[1], "backlog")) backlog();
  if (!strcmp(argv[1], "signed-listener")) signing(3, 4);
  if (!strcmp(argv[1], "signed")) signing(4, 3);
  if (!strcmp(argv[1], "multipath")) multipath();
  if (!strcmp(argv[1], "member")) member();
  if (!strcmp(argv[1], "member6")) member6();
  if (!strcmp(argv[1], "left")) left();
  if (!strcmp(argv[1], "unread")) unread();
  if (!strcmp(argv[1], "named")) named();
  serve(verify);
}
