// SPDX-License-Identifier: Apache-2.0
//
// Processes that have their working directory and umask in common: a parent, a
// child and its child; and one that has its own.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kerneltest.h"

static const char *dirs[2];

// made makes a process that has flags in common with this one; it answers
// questions on a socket: its directory and umask, or 'c' to change them.
static int made(int flags, int deeper) {
  int sp[2];
  MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sp) == 0);
  pid_t pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  MUST(pid >= 0);
  if (pid > 0) {
    close(sp[1]);
    return sp[0];
  }
  close(sp[0]);
  int below = deeper ? made(CLONE_FS, 0) : -1;
  char c, text[4200], path[4096];
  while (read(sp[1], &c, 1) == 1) {
    if (c == 'b') { // the one below
      MUST(write(below, "?", 1) == 1);
      int n = read(below, text, sizeof text);
      MUST(write(sp[1], text, n) == n);
      continue;
    }
    if (c == '0' || c == '1') {
      MUST(chdir(dirs[c - '0']) == 0);
      umask(c == '0' ? 011 : 022);
    }
    mode_t mask = umask(0);
    umask(mask);
    int n = snprintf(text, sizeof text, "%s %o", getcwd(path, sizeof path), mask);
    MUST(write(sp[1], text, n) == n);
  }
  exit(0);
}

static const char *ask(int fd, char c) {
  static char text[4200];
  int n = write(fd, &c, 1) == 1 ? read(fd, text, sizeof text - 1) : 0;
  text[n > 0 ? n : 0] = 0;
  return text;
}

int main(int argc, char **argv) {
  char first[4200], second[4200];
  dirs[0] = argv[1], dirs[1] = argv[2];
  snprintf(first, sizeof first, "%s 11", dirs[0]);
  snprintf(second, sizeof second, "%s 22", dirs[1]);
  MUST(chdir(dirs[0]) == 0);
  umask(011);
  int lone = made(0, 0), shared = made(CLONE_FS, 1);
  MUST(!strcmp(ask(lone, '1'), second));
  ready();
  while (asked()) {
    fails[0] = 0;
    char path[4096];
    CHECK(!strcmp(getcwd(path, sizeof path), dirs[0]), "%s", path);
    CHECK(!strcmp(ask(shared, '?'), first), "%s", ask(shared, '?'));
    CHECK(!strcmp(ask(shared, 'b'), first), "%s", ask(shared, 'b'));
    CHECK(!strcmp(ask(lone, '?'), second), "%s", ask(lone, '?'));
    // One of them goes elsewhere, and all that share with it.
    CHECK(!strcmp(ask(shared, '1'), second));
    CHECK(!strcmp(getcwd(path, sizeof path), dirs[1]), "%s", path);
    CHECK(!strcmp(ask(shared, 'b'), second), "%s", ask(shared, 'b'));
    MUST(chdir(dirs[0]) == 0);
    umask(011);
    answer();
  }
  return 0;
}
