// SPDX-License-Identifier: Apache-2.0
//
// Regular files, directories, devices and paths, by number, flag and offset.
// usage: files DIR
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include "kerneltest.h"

static int rd, wr, ap, dir, path, null, dup_of_rd, far_dup;
static const char *base;

static void verify(void) {
  char b[16] = {0}, cwd[512];
  CHECK(read(rd, b, 3) == 3 && !memcmp(b, "efg", 3), "read %s", b);
  CHECK(lseek(dup_of_rd, 0, SEEK_CUR) == 7, "a dup shares the offset");
  CHECK(lseek(far_dup, 4, SEEK_SET) == 4);
  CHECK(lseek(wr, 0, SEEK_CUR) == 5);
  CHECK((fcntl(ap, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK)) == (O_WRONLY | O_APPEND | O_NONBLOCK));
  CHECK((fcntl(rd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK)) == O_RDONLY, "%o", fcntl(rd, F_GETFL));
  CHECK(fcntl(rd, F_GETFD) == 0);
  CHECK(fcntl(dup_of_rd, F_GETFD) == FD_CLOEXEC);
  CHECK(fcntl(ap, F_GETFD) == FD_CLOEXEC);
  struct stat st;
  CHECK(fstat(dir, &st) == 0 && S_ISDIR(st.st_mode));
  int f = openat(dir, "data", O_RDONLY);
  CHECK(f >= 0);
  close(f);
  CHECK(fstat(path, &st) == 0 && S_ISREG(st.st_mode));
  CHECK(fcntl(path, F_GETFL) & O_PATH);
  CHECK(read(path, b, 1) < 0 && errno == EBADF);
  CHECK(write(null, "x", 1) == 1);
  CHECK(read(null, b, 1) == 0);
  CHECK(getcwd(cwd, sizeof cwd) && !strcmp(cwd, base), "%s", cwd);
  mode_t m = umask(0);
  umask(m);
  CHECK(m == 0137, "%o", m);
  // Nothing else is open: not the frame's program, socket or gate.
  for (int fd = 3; fd < 1200; fd++) {
    int mine = fd == rd || fd == wr || fd == ap || fd == dir || fd == path || fd == null || fd == dup_of_rd || fd == far_dup;
    CHECK((fcntl(fd, F_GETFD) >= 0) == mine, "fd %d", fd);
  }
}

int main(int argc, char **argv) {
  base = argv[1];
  MUST(argc == 2 && chdir(base) == 0);
  MUST((rd = open("data", O_RDWR | O_CREAT, 0600)) >= 0);
  MUST(write(rd, "abcdefghij", 10) == 10);
  close(rd);
  // The numbers collide with those that the engine sees free while it builds.
  int a = open("data", O_RDONLY);
  MUST(dup2(a, 9) == 9);
  close(a);
  rd = 9;
  MUST(lseek(rd, 4, SEEK_SET) == 4);
  MUST((dup_of_rd = fcntl(rd, F_DUPFD_CLOEXEC, 4)) >= 0);
  MUST((far_dup = fcntl(rd, F_DUPFD, 1000)) >= 1000);
  MUST((wr = open("log", O_WRONLY | O_CREAT | O_TRUNC, 0644)) >= 0);
  MUST(write(wr, "12345", 5) == 5);
  MUST((ap = open("log", O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC)) >= 0);
  MUST((dir = open(".", O_RDONLY | O_DIRECTORY)) >= 0);
  MUST((path = open("data", O_PATH)) >= 0);
  MUST((null = open("/dev/null", O_RDWR)) >= 0);
  umask(0137);
  serve(verify);
}
