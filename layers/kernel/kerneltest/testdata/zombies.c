// SPDX-License-Identifier: Apache-2.0
//
// A parent that does not wait for its children, one level further down as well.
#define _GNU_SOURCE
#include <signal.h>
#include <sys/wait.h>

#include "kerneltest.h"

static volatile int told;
static void on_child(int sig) { told++; }

static struct { pid_t pid; int code, status; } dead[] = {
  {0, CLD_EXITED, 7}, {0, CLD_EXITED, 0}, {0, CLD_KILLED, SIGKILL}, {0, CLD_KILLED, SIGTERM}, {0, CLD_KILLED, SIGSEGV}, {0, CLD_KILLED, 40},
};
enum { DEAD = sizeof dead / sizeof dead[0] };
static int to[2], from[2], expect;

static void verify(void) {
  for (int i = 0; i < DEAD; i++) {
    siginfo_t si = {0};
    CHECK(waitid(P_PID, dead[i].pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0);
    CHECK(si.si_pid == dead[i].pid && si.si_status == dead[i].status, "%d: pid %d status %d", i, si.si_pid, si.si_status);
    CHECK(si.si_code == dead[i].code || (si.si_code == CLD_DUMPED && dead[i].status == SIGSEGV), "%d: code %d", i, si.si_code);
  }
  CHECK(told == expect, "told %d times, not %d", told, expect);
}

static void make(void) {
  for (int i = 0; i < DEAD; i++) {
    dead[i].pid = fork();
    MUST(dead[i].pid >= 0);
    if (dead[i].pid) continue;
    if (i == 1) setsid();
    if (dead[i].code == CLD_EXITED) _exit(dead[i].status);
    signal(dead[i].status, SIG_DFL);
    kill(getpid(), dead[i].status);
    _exit(99);
  }
  for (int i = 0; i < DEAD; i++) {
    siginfo_t si;
    while (waitid(P_PID, dead[i].pid, &si, WEXITED | WNOWAIT) < 0) MUST(errno == EINTR);
  }
  expect = told;
}

static void both(void) {
  verify();
  char c = 'v';
  CHECK(write(to[1], &c, 1) == 1);
  char text[128];
  CHECK(read(from[0], text, sizeof text) == sizeof text);
  if (text[0]) fail("below: %s", text);
}

int main(void) {
  struct sigaction sa = {.sa_handler = on_child, .sa_flags = SA_RESTART};
  MUST(sigaction(SIGCHLD, &sa, NULL) == 0 && pipe(to) == 0 && pipe(from) == 0);
  pid_t pid = fork();
  if (pid == 0) {
    make();
    for (char c; read(to[0], &c, 1) == 1;) {
      verify();
      char text[128] = "";
      snprintf(text, sizeof text, "%s", fails);
      if (write(from[1], text, sizeof text) != sizeof text) break;
    }
    _exit(1);
  }
  make();
  serve(both);
}
