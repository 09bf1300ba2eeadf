/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Clocks and timers. A thread looks at CLOCK_MONOTONIC and CLOCK_BOOTTIME all the
 * time; timers of every kind run at an interval; one of each kind was set to a time.
 * Asked to "verify" it says whether the clocks have jumped and whether timers go on;
 * asked for "late", whether what was set to a time has fired, and when.
 */
#include "control.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

#define INTERVAL_MS 20
#define ALARM_S 8
/* A clock that stands still for a second does so because the machine is busy. */
#define MOST_S 2

static const clockid_t ids[2] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME};
static volatile double gap[2], back[2];

enum { TIMERFD, POSIX, ITIMER, NANOSLEEP, BOOTTIMER, TIMERS };
static volatile unsigned ticks[TIMERS];
static double due[2];             /* of the alarms: an absolute one, and a sleep */
static volatile double fired[2];

static double now(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void *look(void *none) {
  double last[2] = {now(ids[0]), now(ids[1])};
  for (;; usleep(500))
    for (int i = 0; i < 2; i++) {
      double t = now(ids[i]), d = t - last[i];
      if (d > gap[i]) gap[i] = d;
      if (d < back[i]) back[i] = d;
      last[i] = t;
    }
  return none;
}

static void *read_timer(void *arg) {
  int i = (int)(intptr_t)arg, fd = timerfd_create(i == TIMERFD ? CLOCK_MONOTONIC : CLOCK_BOOTTIME, 0);
  struct itimerspec t = {{0, INTERVAL_MS * 1000000}, {0, INTERVAL_MS * 1000000}};
  timerfd_settime(fd, 0, &t, 0);
  for (uint64_t n; read(fd, &n, sizeof n) == sizeof n;) ticks[i] += n;
  return arg;
}

static void *sleeper(void *none) {
  struct timespec t;
  for (clock_gettime(CLOCK_MONOTONIC, &t);; ticks[NANOSLEEP]++) {
    t.tv_nsec += INTERVAL_MS * 1000000;
    if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0)) {}
  }
  return none;
}

static void *alarm_absolute(void *none) {
  int fd = timerfd_create(CLOCK_BOOTTIME, 0);
  struct itimerspec t = {{0, 0}, {0, 0}};
  clock_gettime(CLOCK_BOOTTIME, &t.it_value);
  t.it_value.tv_sec += ALARM_S;
  due[0] = t.it_value.tv_sec + t.it_value.tv_nsec * 1e-9;
  timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, 0);
  uint64_t n;
  if (read(fd, &n, sizeof n) == sizeof n) fired[0] = now(CLOCK_BOOTTIME);
  return none;
}

static void *alarm_relative(void *none) {
  struct timespec left = {ALARM_S, 0};
  due[1] = now(CLOCK_MONOTONIC) + ALARM_S;
  while (nanosleep(&left, &left)) {}
  fired[1] = now(CLOCK_MONOTONIC);
  return none;
}

static void tick(int signal) { ticks[signal == SIGALRM ? ITIMER : POSIX]++; }

static void verify(void) {
  for (int i = 0; i < 2; i++) {
    if (!wrong[0] && (back[i] < 0 || gap[i] > MOST_S)) snprintf(wrong, sizeof wrong, "clock %d jumped back by %f s and on by %f s", ids[i], -back[i], gap[i]);
    gap[i] = back[i] = 0;
  }
  unsigned before[TIMERS];
  memcpy(before, (void *)ticks, sizeof before);
  double begun = now(CLOCK_MONOTONIC);
  struct timespec t = {0, 1000000};
  for (int still = 1; still && now(CLOCK_MONOTONIC) < begun + 5;) {
    nanosleep(&t, 0);
    still = 0;
    for (int i = 0; i < TIMERS; i++) still |= ticks[i] < before[i] + 5;
  }
  for (int i = 0; i < TIMERS; i++)
    if (!wrong[0] && ticks[i] < before[i] + 5) snprintf(wrong, sizeof wrong, "timer %d ticks %u times in 5 s", i, ticks[i] - before[i]);
}

static void late(void) {
  for (int i = 0; i < 2; i++) {
    double at = fired[i], l = at - due[i];
    if (at == 0) {
      answer("waits");
      return;
    }
    if (!wrong[0] && (l < 0 || l > MOST_S)) snprintf(wrong, sizeof wrong, "alarm %d is %f s late", i, l);
  }
  verdict();
}

int main(void) {
  control_open();
  struct sigaction a = {.sa_handler = tick, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &a, 0), sigaction(SIGRTMIN, &a, 0);
  struct itimerval i = {{0, INTERVAL_MS * 1000}, {0, INTERVAL_MS * 1000}};
  struct itimerspec t = {{0, INTERVAL_MS * 1000000}, {0, INTERVAL_MS * 1000000}};
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
  timer_t id;
  pthread_t thread;
  if (setitimer(ITIMER_REAL, &i, 0) || timer_create(CLOCK_MONOTONIC, &e, &id) || timer_settime(id, 0, &t, 0)) return 1;
  /* Signals are the first thread's. */
  sigset_t all;
  sigfillset(&all), pthread_sigmask(SIG_BLOCK, &all, 0);
  pthread_create(&thread, 0, look, 0), pthread_create(&thread, 0, sleeper, 0);
  pthread_create(&thread, 0, read_timer, (void *)(intptr_t)TIMERFD), pthread_create(&thread, 0, read_timer, (void *)(intptr_t)BOOTTIMER);
  pthread_create(&thread, 0, alarm_absolute, 0), pthread_create(&thread, 0, alarm_relative, 0);
  pthread_sigmask(SIG_UNBLOCK, &all, 0);
  for (;;) {
    const char *question = asked();
    if (!strcmp(question, "late")) {
      late();
      continue;
    }
    if (!strcmp(question, "verify")) verify();
    if (question[0]) verdict();
  }
}
