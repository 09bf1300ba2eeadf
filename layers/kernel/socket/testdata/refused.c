// SPDX-License-Identifier: Apache-2.0
//
// Sockets that are refused by name. The one in question is descriptor 3.
// usage: refused raw|packet|pending|flight|queued
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "kerneltest.h"

static void verify(void) {}

static void pending(void) {
  int l = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  MUST(l == 3 && bind(l, (void *)&a, sizeof a.sun_family) == 0 && listen(l, 3) == 0);
  socklen_t n = sizeof a;
  MUST(getsockname(l, (void *)&a, &n) == 0);
  MUST(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, n) == 0);
}

static void flight(void) {
  int s[2];
  MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, s) == 0);
  char c[CMSG_SPACE(sizeof(int))] = {0}, x = 'x';
  struct iovec v = {&x, 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
  struct cmsghdr *h = CMSG_FIRSTHDR(&m);
  h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(h), &(int){1}, sizeof(int));
  MUST(sendmsg(s[1], &m, 0) == 1);
}

static void queued(void) {
  int s = socket(AF_UNIX, SOCK_DGRAM, 0);
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  MUST(s == 3 && bind(s, (void *)&a, sizeof a.sun_family) == 0);
  socklen_t n = sizeof a;
  MUST(getsockname(s, (void *)&a, &n) == 0);
  MUST(sendto(socket(AF_UNIX, SOCK_DGRAM, 0), "x", 1, 0, (void *)&a, n) == 1);
}

int main(int argc, char **argv) {
  MUST(argc == 2);
  if (!strcmp(argv[1], "raw")) MUST(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) == 3);
  if (!strcmp(argv[1], "packet")) MUST(socket(AF_PACKET, SOCK_RAW, 0) == 3);
  if (!strcmp(argv[1], "pending")) pending();
  if (!strcmp(argv[1], "flight")) flight();
  if (!strcmp(argv[1], "queued")) queued();
  serve(verify);
}
