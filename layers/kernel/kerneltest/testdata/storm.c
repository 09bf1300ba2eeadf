// SPDX-License-Identifier: Apache-2.0
//
// Children that make children, by fork, vfork and exec, as fast as they can. A
// harmed one is told by its end: every end is looked at.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "kerneltest.h"

enum { BRANCHES = 3 };
static struct { pid_t pid; int from; unsigned rounds; } branch[BRANCHES];

static void expect(pid_t pid, int code) {
  int st = 0;
  if (pid < 0 || waitpid(pid, &st, 0) != pid || !WIFEXITED(st) || WEXITSTATUS(st) != code) {
    dprintf(2, "pid %d ended with %x, not %d: errno %d\n", pid, st, code, errno);
    _exit(9);
  }
}

static void storm(int out) {
  for (unsigned round = 0;; round++) {
    pid_t a = fork();
    if (a == 0) {
      pid_t b = fork();
      if (b == 0) _exit(3);
      expect(b, 3);
      _exit(4);
    }
    pid_t c = vfork();
    if (c == 0) {
      execl("/bin/true", "true", (char *)NULL);
      _exit(98);
    }
    expect(c, 0);
    expect(a, 4);
    if (write(out, &round, sizeof round) != sizeof round && errno != EAGAIN) _exit(8);
  }
}

static void verify(void) {
  for (int i = 0; i < BRANCHES; i++) {
    unsigned seen = branch[i].rounds;
    for (unsigned n; read(branch[i].from, &n, sizeof n) == sizeof n;) {
      CHECK(n > branch[i].rounds || n == 0, "branch %d: %u after %u", i, n, branch[i].rounds);
      branch[i].rounds = n;
      if (n > seen + 2) break;
    }
    CHECK(waitpid(branch[i].pid, NULL, WNOHANG) == 0, "branch %d has ended", i);
    CHECK(branch[i].rounds > seen, "branch %d stands still at %u", i, seen);
  }
}

int main(void) {
  for (int i = 0; i < BRANCHES; i++) {
    int p[2];
    MUST(pipe(p) == 0);
    branch[i].pid = fork();
    MUST(branch[i].pid >= 0);
    if (branch[i].pid == 0) {
      fcntl(p[1], F_SETFL, O_NONBLOCK);
      storm(p[1]);
    }
    close(p[1]);
    branch[i].from = p[0];
  }
  serve(verify);
}
