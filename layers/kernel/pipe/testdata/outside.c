// SPDX-License-Identifier: Apache-2.0
//
// A pipe whose writing end is in no descriptor table: it waits in a socket's
// queue. To the reader it looks as if a process outside held it.
#define _GNU_SOURCE
#include <sys/socket.h>
#include "kerneltest.h"

static void verify(void) {}

int main(void) {
  int p[2], s[2];
  MUST(pipe(p) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, s) == 0);
  char c[CMSG_SPACE(sizeof(int))] = {0}, x = 'x';
  struct iovec v = {&x, 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
  struct cmsghdr *h = CMSG_FIRSTHDR(&m);
  h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(h), &p[1], sizeof(int));
  MUST(sendmsg(s[0], &m, 0) == 1);
  close(p[1]);
  serve(verify);
}
