// SPDX-License-Identifier: Apache-2.0
//
// Children that are stopped by job control: one with threads, one whose stop its
// parent has not been told of, one with a handler for SIGTSTP.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "kerneltest.h"

static volatile long *counts; // shared: what the threads of children have done

static void *count(void *p) {
  for (;; usleep(1000)) __sync_fetch_and_add((long *)p, 1);
  return NULL;
}

static char state_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *f = fopen(path, "r");
  size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
  if (f) fclose(f);
  text[n] = 0;
  char *p = strrchr(text, ')');
  return p ? p[2] : '?';
}

static int comes_to(pid_t pid, char state) {
  for (int i = 0; i < 5000 && state_of(pid) != state; i++) usleep(1000);
  return state_of(pid) == state;
}

static volatile sig_atomic_t handled, told;
static void on_stop(int sig) { handled++; }
static void on_child(int sig) { told++; }

static pid_t child(int n, int threads, int handler) {
  pid_t pid = fork();
  MUST(pid >= 0);
  if (pid) return pid;
  signal(SIGCHLD, SIG_DFL);
  if (handler) signal(SIGTSTP, on_stop);
  pthread_t id;
  for (int i = 0; i < threads; i++) MUST(pthread_create(&id, NULL, count, (void *)&counts[n]) == 0);
  count((void *)&counts[n]);
  exit(0);
}

static void stop(pid_t pid, int sig, int wait) {
  int status;
  MUST(kill(pid, sig) == 0);
  if (wait) MUST(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == sig);
  MUST(comes_to(pid, 'T'));
}

int main(void) {
  counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  MUST(counts != MAP_FAILED);
  pid_t busy = child(0, 5, 0), untold = child(1, 0, 0), handler = child(2, 1, 1);
  while (!counts[0] || !counts[1] || !counts[2]) usleep(1000);
  stop(busy, SIGTSTP, 1);
  stop(handler, SIGSTOP, 1);
  signal(SIGCHLD, on_child);
  stop(untold, SIGSTOP, 0);
  MUST(told == 1);
  pid_t list[] = {busy, untold, handler};
  ready();
  for (int rounds = 0; asked(); rounds++) {
    int status;
    long was[3];
    fails[0] = 0;
    CHECK(told == 1, "told %d times of children", told);
    for (int i = 0; i < 3; i++) {
      CHECK(comes_to(list[i], 'T'), "child %d is %c", i, state_of(list[i]));
      was[i] = counts[i];
    }
    usleep(20000);
    for (int i = 0; i < 3; i++) CHECK(was[i] == counts[i], "child %d runs", i);
    CHECK(waitpid(busy, &status, WUNTRACED | WNOHANG) == 0 && waitpid(handler, &status, WUNTRACED | WNOHANG) == 0);
    siginfo_t info = {0};
    CHECK(waitid(P_PID, untold, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 && info.si_pid == untold && info.si_status == SIGSTOP,
          "the stop that was not told: pid %d, status %d", info.si_pid, info.si_status);
    // All go on, and are stopped again.
    for (int i = 0; i < 3; i++) {
      CHECK(kill(list[i], SIGCONT) == 0 && comes_to(list[i], 'S'), "child %d is %c", i, state_of(list[i]));
      for (int k = 0; k < 5000 && counts[i] == was[i]; k++) usleep(1000);
      CHECK(counts[i] != was[i], "child %d does not go on", i);
    }
    while (waitpid(-1, &status, WCONTINUED | WUNTRACED | WNOHANG) > 0) {}
    stop(busy, SIGTSTP, 1);
    stop(handler, SIGSTOP, 1);
    told = 0;
    stop(untold, SIGSTOP, 0);
    for (int k = 0; k < 1000 && !told; k++) usleep(1000);
    answer();
  }
  return 0;
}
