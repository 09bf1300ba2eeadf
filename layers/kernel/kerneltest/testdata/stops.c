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

// comes_to_stop waits until a child stands still: whoever was traced wakes once
// at the detach and stops again without a step of its own.
static int comes_to_stop(pid_t pid) {
  for (int i = 0; i < 10000; i++, usleep(1000)) {
    if (state_of(pid) == 'T') return 1;
  }
  return 0;
}

static volatile sig_atomic_t handled, told, told_of, told_code;
static void on_stop(int sig) { handled++; }
static void on_child(int sig, siginfo_t *info, void *context) {
  told_of = info->si_pid;
  told_code = info->si_code;
  told++;
}

// changes sends a signal that stops or continues a child, and waits for the one
// SIGCHLD that says so. The kernel sends that behind everything else that shows
// the change, and merges it with another one that is pending.
static int changes(pid_t pid, int sig, int code) {
  int before = told;
  if (kill(pid, sig) != 0) return 0;
  for (int i = 0; i < 10000 && told == before; i++) usleep(1000);
  return told == before + 1 && told_of == pid && told_code == code;
}

// Each child is in a group of its own in its parent's session, as a shell's job
// is: SIGTSTP stops nobody in an orphaned group, and what group this program was
// started in is not its own doing.
static pid_t child(int n, int threads, int handler) {
  pid_t pid = fork();
  MUST(pid >= 0);
  if (pid) return pid;
  MUST(setpgid(0, 0) == 0);
  signal(SIGCHLD, SIG_DFL);
  if (handler) signal(SIGTSTP, on_stop);
  pthread_t id;
  for (int i = 0; i < threads; i++) MUST(pthread_create(&id, NULL, count, (void *)&counts[n]) == 0);
  count((void *)&counts[n]);
  exit(0);
}

// is_stopped waits for the news of a child's stop.
static int is_stopped(pid_t pid, int sig) {
  int status;
  return waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == sig;
}

int main(void) {
  MUST(setsid() > 0);
  counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  MUST(counts != MAP_FAILED);
  struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
  MUST(sigaction(SIGCHLD, &action, NULL) == 0);
  pid_t busy = child(0, 5, 0), untold = child(1, 0, 0), handler = child(2, 1, 1);
  while (!counts[0] || !counts[1] || !counts[2]) usleep(1000);
  MUST(changes(busy, SIGTSTP, CLD_STOPPED) && is_stopped(busy, SIGTSTP));
  MUST(changes(handler, SIGSTOP, CLD_STOPPED) && is_stopped(handler, SIGSTOP));
  MUST(changes(untold, SIGSTOP, CLD_STOPPED));
  pid_t list[] = {busy, untold, handler};
  int known = told;
  ready();
  for (int rounds = 0; asked(); rounds++) {
    int status;
    long was[3];
    fails[0] = 0;
    CHECK(told == known, "told %d times of children, last of %d, code %d", told - known, told_of, told_code);
    for (int i = 0; i < 3; i++) {
      CHECK(comes_to_stop(list[i]), "child %d is %c", i, state_of(list[i]));
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
      CHECK(changes(list[i], SIGCONT, CLD_CONTINUED), "child %d: told %d times, last of %d, code %d", i, told - known, told_of, told_code);
      for (int k = 0; k < 5000 && counts[i] == was[i]; k++) usleep(1000);
      CHECK(counts[i] != was[i], "child %d does not go on", i);
    }
    while (waitpid(-1, &status, WCONTINUED | WUNTRACED | WNOHANG) > 0) {}
    CHECK(changes(busy, SIGTSTP, CLD_STOPPED) && is_stopped(busy, SIGTSTP));
    CHECK(changes(handler, SIGSTOP, CLD_STOPPED) && is_stopped(handler, SIGSTOP));
    CHECK(changes(untold, SIGSTOP, CLD_STOPPED));
    CHECK(!handled, "the handler of SIGTSTP has run");
    known = told;
    answer();
  }
  return 0;
}
