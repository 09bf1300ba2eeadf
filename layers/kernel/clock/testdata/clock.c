// SPDX-License-Identifier: Apache-2.0
//
// A process whose clocks must go on: one thread looks at them all the time, by
// the vDSO and by the kernel, another sleeps until an absolute time. usage: clock
// [SECONDS]: by how much they may jump at most, 1 if it is not said, or, negated,
// by how much they have to.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include "kerneltest.h"

static const clockid_t ids[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double last[2], gap[2], slept_late, until;
static int back, apart, early, sleeping;

static double seconds(struct timespec t) { return t.tv_sec + t.tv_nsec * 1e-9; }

static double now(int i) {
  struct timespec a, b;
  clock_gettime(ids[i], &a);
  syscall(SYS_clock_gettime, ids[i], &b);
  double d = seconds(b) - seconds(a);
  if (d < 0 || d > 0.5) apart++;
  return seconds(b);
}

static void look_once(void) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < 2; i++) {
    double t = now(i);
    if (t < last[i]) back++;
    if (last[i] > 0 && t - last[i] > gap[i]) gap[i] = t - last[i];
    last[i] = t;
  }
  pthread_mutex_unlock(&lock);
}

static void *look(void *arg) {
  for (;; usleep(500)) look_once();
  return arg;
}

static void *rest(void *arg) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_sec += 3;
  until = seconds(t);
  sleeping = 1;
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0)) {
  }
  double late = now(0) - until;
  if (late < 0) early = 1;
  slept_late = late;
  sleeping = 0;
  return arg;
}

static double least, most = 1;

static void verify(void) {
  static int round;
  look_once();
  pthread_mutex_lock(&lock);
  CHECK(back == 0 && apart == 0, "%d times back, %d times the vDSO disagrees", back, apart);
  for (int i = 0; i < 2; i++) {
    CHECK(round == 0 || (gap[i] >= least && gap[i] <= most), "clock %d jumped by %f s", ids[i], gap[i]);
    gap[i] = 0;
  }
  pthread_mutex_unlock(&lock);
  CHECK(!early, "a sleep ended early");
  CHECK(!sleeping || now(0) < until + 2 || least > 0, "a sleep does not end");
  round++;
  pthread_t t;
  if (!sleeping && pthread_create(&t, 0, rest, 0) == 0) pthread_detach(t);
  struct timespec child;
  int fd[2];
  MUST(pipe(fd) == 0);
  pid_t pid = fork();
  if (pid == 0) {
    clock_gettime(CLOCK_MONOTONIC, &child);
    _exit(write(fd[1], &child, sizeof child) != sizeof child);
  }
  CHECK(read(fd[0], &child, sizeof child) == sizeof child);
  CHECK(seconds(child) >= last[0] - 0.1 && seconds(child) < last[0] + 5, "a child has another clock");
  close(fd[0]), close(fd[1]);
  int status;
  waitpid(pid, &status, 0);
}

int main(int argc, char **argv) {
  if (argc > 1 && atof(argv[1]) < 0) least = -atof(argv[1]), most = least + 100;
  pthread_t t;
  MUST(pthread_create(&t, 0, look, 0) == 0);
  serve(verify);
}
