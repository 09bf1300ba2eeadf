// SPDX-License-Identifier: Apache-2.0
//
// Ten thousand descriptions, each at an offset of its own.
// usage: many DIR COUNT
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/resource.h>
#include "kerneltest.h"

static int count;

static void verify(void) {
  for (int i = 0; i < count; i++)
    CHECK(lseek(10 + i, 0, SEEK_CUR) == i, "fd %d", 10 + i);
  CHECK(fcntl(10 + count, F_GETFD) < 0);
}

int main(int argc, char **argv) {
  MUST(argc == 3 && chdir(argv[1]) == 0);
  count = atoi(argv[2]);
  struct rlimit l;
  MUST(getrlimit(RLIMIT_NOFILE, &l) == 0);
  l.rlim_cur = l.rlim_max;
  MUST(setrlimit(RLIMIT_NOFILE, &l) == 0);
  int f = open("file", O_RDWR | O_CREAT, 0600);
  MUST(f >= 0 && ftruncate(f, 1 << 20) == 0);
  for (int i = 0; i < count; i++) {
    int g = open("file", O_RDONLY);
    MUST(g >= 0 && lseek(g, i, SEEK_SET) == i);
    if (g == 10 + i) continue;
    MUST(fcntl(g, F_DUPFD, 10 + i) == 10 + i);
    close(g);
  }
  if (f < 10) close(f);
  serve(verify);
}
