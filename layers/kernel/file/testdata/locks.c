// SPDX-License-Identifier: Apache-2.0
//
// flock, open file description locks, POSIX locks and a lease. A child looks at
// them from outside: a lock does not stop its owner.
// usage: locks DIR
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include "kerneltest.h"

static int fl, ofd, px, lease;

static struct flock range(short type, long start, long len) {
  struct flock k = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
  return k;
}

// look runs in the child: returns the first of its checks that fails.
static int look(void) {
  int f = open("flock", O_RDWR);
  if (flock(f, LOCK_SH | LOCK_NB) == 0) return 1;
  f = open("ofd", O_RDWR);
  struct flock k = range(F_WRLCK, 10, 5);
  if (fcntl(f, F_OFD_GETLK, &k) != 0 || k.l_type != F_WRLCK || k.l_start != 10 || k.l_len != 5) return 2;
  k = range(F_WRLCK, 0, 10);
  if (fcntl(f, F_OFD_GETLK, &k) != 0 || k.l_type != F_UNLCK) return 3;
  f = open("posix", O_RDWR);
  k = range(F_WRLCK, 0, 0);
  if (fcntl(f, F_GETLK, &k) != 0 || k.l_type != F_RDLCK || k.l_start != 3 || k.l_len != 4 || k.l_pid != getppid()) return 4;
  k = range(F_WRLCK, 100, 0);
  if (fcntl(f, F_GETLK, &k) != 0 || k.l_type != F_WRLCK || k.l_start != 100 || k.l_len != 0) return 5;
  return 0;
}

static void verify(void) {
  pid_t p = fork();
  CHECK(p >= 0);
  if (p == 0) _exit(look());
  int st = -1;
  CHECK(waitpid(p, &st, 0) == p && st == 0, "check %d", st >> 8);
  CHECK(fcntl(lease, F_GETLEASE) == F_WRLCK, "%d", fcntl(lease, F_GETLEASE));
}

int main(int argc, char **argv) {
  MUST(argc == 2 && chdir(argv[1]) == 0);
  MUST((fl = open("flock", O_RDWR | O_CREAT, 0600)) >= 0 && flock(fl, LOCK_EX) == 0);
  MUST((ofd = open("ofd", O_RDWR | O_CREAT, 0600)) >= 0);
  struct flock k = range(F_WRLCK, 10, 5);
  MUST(fcntl(ofd, F_OFD_SETLK, &k) == 0);
  MUST((px = open("posix", O_RDWR | O_CREAT, 0600)) >= 0);
  MUST(fcntl(px, F_DUPFD, 60) >= 60); // a second number of the same description
  k = range(F_RDLCK, 3, 4);
  MUST(fcntl(px, F_SETLK, &k) == 0);
  k = range(F_WRLCK, 100, 0);
  MUST(fcntl(px, F_SETLK, &k) == 0);
  MUST((lease = open("lease", O_RDWR | O_CREAT, 0600)) >= 0);
  MUST(fcntl(lease, F_SETLEASE, F_WRLCK) == 0);
  serve(verify);
}
