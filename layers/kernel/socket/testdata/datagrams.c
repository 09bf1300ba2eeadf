// SPDX-License-Identifier: Apache-2.0
//
// UDP sockets, bound and connected, and a route netlink socket.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include "kerneltest.h"

static int bound, client, six, unbound, nl;
static struct sockaddr_in at;
static struct sockaddr_in6 at6;

static int option(int fd, int level, int name) {
  int v = -1;
  socklen_t n = sizeof v;
  CHECK(getsockopt(fd, level, name, &v, &n) == 0);
  return v;
}

static void verify(void) {
  char b[16];
  struct sockaddr_in from, peer;
  socklen_t n = sizeof from;
  CHECK(send(client, "udp", 3, 0) == 3);
  CHECK(recvfrom(bound, b, 16, 0, (void *)&from, &n) == 3);
  CHECK(sendto(bound, "back", 4, 0, (void *)&from, n) == 4);
  CHECK(recv(client, b, 16, 0) == 4);
  n = sizeof peer;
  CHECK(getpeername(client, (void *)&peer, &n) == 0 && peer.sin_port == at.sin_port);
  CHECK(sendto(unbound, "six", 3, 0, (void *)&at6, sizeof at6) == 3);
  CHECK(recv(six, b, 16, 0) == 3);
  CHECK(option(bound, IPPROTO_IP, IP_TTL) == 42);
  CHECK(option(bound, IPPROTO_IP, IP_PKTINFO) == 1);
  CHECK(option(bound, SOL_SOCKET, SO_BROADCAST) == 1);
  CHECK(option(bound, SOL_SOCKET, SO_REUSEADDR) == 1);
  CHECK(option(client, SOL_SOCKET, SO_REUSEADDR) == 0);
  CHECK(option(six, IPPROTO_IPV6, IPV6_RECVPKTINFO) == 1);
  struct sockaddr_nl a;
  n = sizeof a;
  CHECK(getsockname(nl, (void *)&a, &n) == 0 && a.nl_groups == (RTMGRP_LINK | RTMGRP_IPV4_ROUTE), "%x", a.nl_groups);
  struct { struct nlmsghdr h; struct rtgenmsg g; } req = {{sizeof req, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0}, {AF_UNSPEC}};
  CHECK(send(nl, &req, sizeof req, 0) == sizeof req);
  static char reply[65536];
  for (;;) {
    ssize_t k = recv(nl, reply, sizeof reply, 0);
    CHECK(k > 16);
    if (k <= 16) return;
    if (((struct nlmsghdr *)reply)->nlmsg_type == NLMSG_DONE) break;
  }
}

static void set(int fd, int level, int name, int v) { MUST(setsockopt(fd, level, name, &v, sizeof v) == 0); }

int main(void) {
  MUST((bound = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
  set(bound, SOL_SOCKET, SO_REUSEADDR, 1);
  set(bound, SOL_SOCKET, SO_BROADCAST, 1);
  set(bound, IPPROTO_IP, IP_TTL, 42);
  set(bound, IPPROTO_IP, IP_PKTINFO, 1);
  at.sin_family = AF_INET, at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t n = sizeof at;
  MUST(bind(bound, (void *)&at, n) == 0 && getsockname(bound, (void *)&at, &n) == 0);
  MUST((client = socket(AF_INET, SOCK_DGRAM, 0)) >= 0 && connect(client, (void *)&at, sizeof at) == 0);
  MUST((six = socket(AF_INET6, SOCK_DGRAM, 0)) >= 0);
  set(six, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  at6.sin6_family = AF_INET6, at6.sin6_addr = in6addr_loopback;
  n = sizeof at6;
  MUST(bind(six, (void *)&at6, n) == 0 && getsockname(six, (void *)&at6, &n) == 0);
  MUST((unbound = socket(AF_INET6, SOCK_DGRAM, 0)) >= 0);
  MUST((nl = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)) >= 0);
  struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_ROUTE};
  MUST(bind(nl, (void *)&a, sizeof a) == 0);
  serve(verify);
}
