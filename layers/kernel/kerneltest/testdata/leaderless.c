// SPDX-License-Identifier: Apache-2.0
//
// The first process has no leader any more, and a child that has none either,
// with memory, descriptors and a handler of its own. The threads that are left
// serve the test and each other.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kerneltest.h"

static int to[2], from[2];
static pid_t child;
static volatile int handled;

static int state_of_leader(void) {
  char line[64] = {0};
  int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  MUST(fd >= 0 && read(fd, line, sizeof line - 1) > 0 && close(fd) == 0);
  return strchr(line, ')')[2];
}

static void on_signal(int n) { handled = n; }

static void check_self(void) {
  char name[16];
  CHECK(state_of_leader() == 'Z');
  CHECK(syscall(SYS_gettid) != getpid());
  CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "survivor") == 0);
  handled = 0;
  CHECK(kill(getpid(), SIGUSR2) == 0);
  while (!handled) sched_yield();
}

static void *childs(void *arg) {
  char c;
  prctl(PR_SET_NAME, "survivor");
  while (state_of_leader() != 'Z') sched_yield();
  while (read(to[0], &c, 1) == 1) {
    check_self();
    const char *say = fails[0] ? fails : "fine";
    if (write(from[1], say, strlen(say) + 1) < 0) _exit(1);
  }
  _exit(0);
}

static void verify(void) {
  char line[600] = {0};
  check_self();
  CHECK(write(to[1], "v", 1) == 1);
  CHECK(read(from[0], line, sizeof line - 1) > 0);
  if (strcmp(line, "fine")) fail("child: %s", line);
  CHECK(waitpid(child, NULL, WNOHANG) == 0);
}

static void *serves(void *arg) {
  prctl(PR_SET_NAME, "survivor");
  while (state_of_leader() != 'Z') sched_yield();
  serve(verify);
  return NULL;
}

static void *idle(void *arg) {
  for (;;) pause();
}

int main(void) {
  pthread_t t;
  MUST(pipe(to) == 0 && pipe(from) == 0);
  MUST(signal(SIGUSR2, on_signal) != SIG_ERR);
  child = fork();
  MUST(child >= 0);
  MUST(pthread_create(&t, NULL, idle, NULL) == 0);
  MUST(pthread_create(&t, NULL, child == 0 ? childs : serves, NULL) == 0);
  syscall(SYS_exit, 7);
}
