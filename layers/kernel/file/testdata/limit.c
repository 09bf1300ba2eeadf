// SPDX-License-Identifier: Apache-2.0
//
// Takes the last numbers below a limit of open files, and leaves some below.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/resource.h>
#include "kerneltest.h"

enum { LIMIT = 64 };

static void verify(void) {
  for (int fd = 30; fd < LIMIT; fd++) CHECK(fcntl(fd, F_GETFD) == 0, "fd %d", fd);
  for (int fd = 3; fd < 30; fd++) CHECK(fcntl(fd, F_GETFD) < 0, "fd %d", fd);
}

int main(void) {
  int f = open("/dev/null", O_RDWR);
  MUST(f >= 0);
  for (int fd = 30; fd < LIMIT; fd++) MUST(dup2(f, fd) == fd);
  close(f);
  struct rlimit l = {LIMIT, LIMIT};
  MUST(setrlimit(RLIMIT_NOFILE, &l) == 0);
  serve(verify);
}
