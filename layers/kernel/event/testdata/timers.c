// SPDX-License-Identifier: Apache-2.0
//
// timerfds: running, periodic and expired, disarmed, of the calendar.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/timerfd.h>
#include <time.h>
#include "kerneltest.h"

static int once, periodic, unread, off, calendar, past;
static time_t when;

static struct itimerspec in(long sec, long nsec, long interval_ms) {
  struct itimerspec t = {{interval_ms / 1000, interval_ms % 1000 * 1000000}, {sec, nsec}};
  return t;
}

static void verify(void) {
  struct itimerspec t;
  uint64_t n = 0;
  CHECK(timerfd_gettime(once, &t) == 0 && t.it_value.tv_sec > 3500 && t.it_value.tv_sec <= 3600, "%ld", (long)t.it_value.tv_sec);
  CHECK(t.it_interval.tv_sec == 0 && t.it_interval.tv_nsec == 0);
  // Blocks until the next expiration: it still runs.
  CHECK(read(periodic, &n, 8) == 8 && n >= 1);
  CHECK(timerfd_gettime(periodic, &t) == 0 && t.it_interval.tv_nsec == 20000000);
  static int round;
  if (round++ == 0) CHECK(read(unread, &n, 8) == 8 && n >= 1, "%llu", (unsigned long long)n);
  usleep(60000);
  CHECK(read(unread, &n, 8) == 8 && n >= 1, "it runs on after it was read");
  CHECK(timerfd_gettime(off, &t) == 0 && t.it_value.tv_sec == 0 && t.it_value.tv_nsec == 0);
  CHECK(read(off, &n, 8) < 0 && errno == EAGAIN);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  CHECK(timerfd_gettime(calendar, &t) == 0);
  long left = when - now.tv_sec;
  CHECK(t.it_value.tv_sec >= left - 2 && t.it_value.tv_sec <= left, "%ld, %ld", (long)t.it_value.tv_sec, left);
  if (round == 1) CHECK(read(past, &n, 8) == 8 && n == 1, "%llu", (unsigned long long)n);
}

int main(void) {
  struct itimerspec t = in(3600, 0, 0);
  MUST((once = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)) >= 0 && timerfd_settime(once, 0, &t, 0) == 0);
  t = in(0, 1000000, 20);
  MUST((periodic = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0 && timerfd_settime(periodic, 0, &t, 0) == 0);
  MUST((unread = timerfd_create(CLOCK_BOOTTIME, 0)) >= 0 && timerfd_settime(unread, 0, &t, 0) == 0);
  MUST((off = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)) >= 0);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  when = now.tv_sec + 1800;
  t = in(when, 0, 0);
  MUST((calendar = timerfd_create(CLOCK_REALTIME, 0)) >= 0);
  MUST(timerfd_settime(calendar, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &t, 0) == 0);
  t = in(0, 1, 0);
  MUST((past = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0 && timerfd_settime(past, 0, &t, 0) == 0);
  usleep(30000);
  serve(verify);
}
