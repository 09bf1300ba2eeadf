// SPDX-License-Identifier: Apache-2.0
//
// Descriptors and credentials in flight, which are received, checked and sent
// again at each verification. No descriptor appears meanwhile.
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include "kerneltest.h"

enum { MESSAGES = 5 };

static int stream[2], packets[2], first_free;

static void send_one(int fd, int i) {
  char c[CMSG_SPACE(sizeof(int))] = {0}, text[8] = "message";
  int file = memfd_create("flight", 0);
  uint64_t value = 10 + i;
  CHECK(write(file, &value, 8) == 8);
  struct iovec v = {text, sizeof text};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
  struct cmsghdr *h = CMSG_FIRSTHDR(&m);
  h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(h), &file, sizeof(int));
  CHECK(send(fd, "plain", 5, 0) == 5 && sendmsg(fd, &m, 0) == sizeof text);
  close(file);
}

static int lowest(void) {
  int fd = dup(0);
  close(fd);
  return fd;
}

static void receive_one(int fd, int i) {
  char c[256], text[16];
  struct iovec v = {text, 5};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
  CHECK(recvmsg(fd, &m, MSG_DONTWAIT) == 5 && !memcmp(text, "plain", 5), "message %d", i);
  v.iov_len = sizeof text;
  m.msg_controllen = sizeof c;
  CHECK(recvmsg(fd, &m, MSG_DONTWAIT) == 8 && !memcmp(text, "message", 7), "message %d", i);
  int got = -1, who = 0;
  for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
    if (h->cmsg_type == SCM_RIGHTS) memcpy(&got, CMSG_DATA(h), sizeof got);
    if (h->cmsg_type == SCM_CREDENTIALS) who = ((struct ucred *)CMSG_DATA(h))->pid;
  }
  uint64_t value = 0;
  CHECK(got >= 0 && pread(got, &value, 8, 0) == 8 && value == 10ul + i && who == getpid(), "descriptor %d, value %lu, from %d", got, value, who);
  close(got);
}

static void verify(void) {
  CHECK(lowest() == first_free, "the lowest free descriptor is %d", lowest());
  for (int i = 0; i < MESSAGES; i++) {
    receive_one(stream[1], i);
    receive_one(packets[1], i);
  }
  for (int i = 0; i < MESSAGES; i++) {
    send_one(stream[0], i);
    send_one(packets[0], i);
  }
}

int main(void) {
  int one = 1;
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets) == 0);
  MUST(setsockopt(stream[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0);
  MUST(setsockopt(packets[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0);
  for (int i = 0; i < MESSAGES; i++) {
    send_one(stream[0], i);
    send_one(packets[0], i);
  }
  first_free = lowest();
  serve(verify);
}
