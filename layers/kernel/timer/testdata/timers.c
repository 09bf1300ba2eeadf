// SPDX-License-Identifier: Apache-2.0
//
// Timers of every kind.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "kerneltest.h"

#define BLOCKED SIGRTMIN + 1
#define ONCE SIGRTMIN + 2
#define FAST SIGRTMIN + 3
#define LONG 100000  // seconds

static volatile int fast, fast_bad, vtalrm, worker_tid, threaded;
static struct itimerspec was[100];
static struct timespec since;

static int create(int clock, int notify, int sig, uintptr_t value, int tid) {
  int id = -1;
  struct sigevent e = {.sigev_notify = notify, .sigev_signo = sig, .sigev_value.sival_ptr = (void *)value};
  if (notify & SIGEV_THREAD_ID) e._sigev_un._tid = tid;
  MUST(syscall(SYS_timer_create, clock, &e, &id) == 0);
  return id;
}
static int set(int id, double value, double interval) {
  struct itimerspec s = {{interval, (interval - (long)interval) * 1e9}, {value, (value - (long)value) * 1e9}};
  return syscall(SYS_timer_settime, id, 0, &s, NULL);
}
static struct itimerspec get(int id) {
  struct itimerspec s = {0};
  CHECK(syscall(SYS_timer_gettime, id, &s) == 0, "timer %d is gone", id);
  return s;
}
static double seconds(struct timespec t) { return t.tv_sec + t.tv_nsec / 1e9; }

static void on_fast(int sig, siginfo_t *si, void *uc) {
  if (gettid() != worker_tid || si->si_value.sival_ptr != (void *)0x123456789abcdef || si->si_code != SI_TIMER) fast_bad = 1;
  fast++;
}
static void on_vtalrm(int sig) { vtalrm++; }
static void on_thread(union sigval v) { threaded += v.sival_int; }

static void *worker(void *arg) {
  sigset_t s;
  worker_tid = gettid();
  sigemptyset(&s);
  sigaddset(&s, FAST);
  pthread_sigmask(SIG_UNBLOCK, &s, NULL);
  for (;;) pause();
}

static int slow, none, sleepy, thread_id, blocked, once, cpu, thread_cpu, absolute, boot, idle;
static timer_t libc;
static clockid_t main_cpu;

static void prepare(void) {
  pthread_t t;
  pthread_create(&t, NULL, worker, NULL);
  while (!worker_tid) sched_yield();
  pthread_getcpuclockid(pthread_self(), &main_cpu);
  slow = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR1, 77, 0);
  for (int i = 0; i < 5; i++) {
    int gap = create(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
    syscall(SYS_timer_delete, gap);
  }
  none = create(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
  sleepy = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR1, 0, 0);  // never armed
  thread_id = create(CLOCK_MONOTONIC, SIGEV_THREAD_ID, FAST, 0x123456789abcdef, worker_tid);
  blocked = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, BLOCKED, 99, 0);
  once = create(CLOCK_BOOTTIME, SIGEV_SIGNAL, ONCE, 98, 0);
  cpu = create(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGUSR1, 0, 0);
  thread_cpu = create(main_cpu, SIGEV_SIGNAL, SIGUSR1, 0, 0);
  absolute = create(CLOCK_REALTIME, SIGEV_SIGNAL, SIGUSR1, 0, 0);
  boot = create(CLOCK_TAI, SIGEV_SIGNAL, SIGUSR1, 0, 0);
  idle = create(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
  MUST(set(slow, LONG, 7.5) == 0 && set(none, LONG, 0) == 0 && set(thread_id, 0.02, 0.02) == 0 && set(blocked, 0.001, 50) == 0);
  MUST(set(once, 0.001, 0) == 0 && set(cpu, LONG, 3) == 0 && set(thread_cpu, LONG, 0) == 0 && set(boot, LONG, 0) == 0);
  struct itimerspec s = {0};
  clock_gettime(CLOCK_REALTIME, &s.it_value);
  s.it_value.tv_sec += LONG;
  MUST(syscall(SYS_timer_settime, absolute, TIMER_ABSTIME, &s, NULL) == 0);
  struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_thread, .sigev_value.sival_int = 1};
  MUST(timer_create(CLOCK_MONOTONIC, &e, &libc) == 0);
  struct itimerspec l = {{0, 30000000}, {0, 30000000}};
  MUST(timer_settime(libc, 0, &l, NULL) == 0);
  struct itimerval real = {{11, 500000}, {LONG, 0}}, virtual = {{0, 10000}, {0, 10000}}, prof = {{0, 0}, {LONG, 0}};
  MUST(setitimer(ITIMER_REAL, &real, NULL) == 0 && setitimer(ITIMER_VIRTUAL, &virtual, NULL) == 0 && setitimer(ITIMER_PROF, &prof, NULL) == 0);
  usleep(10000);  // blocked and once expire
}

// left: what is left has not grown, and shrunk by no more than time passed.
static void left(const char *what, int id, double interval) {
  struct itimerspec s = get(id);
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double was_left = was[id].it_value.tv_sec ? seconds(was[id].it_value) : LONG, gone = seconds(now) - seconds(since);
  CHECK(seconds(s.it_value) <= was_left && seconds(s.it_value) >= was_left - gone - 0.1, "%s: %f left, had %f, %f ago", what, seconds(s.it_value), was_left, gone);
  CHECK(seconds(s.it_interval) == interval, "%s: interval %f", what, seconds(s.it_interval));
  was[id] = s;
}

static int take(int sig, siginfo_t *si, double wait) {
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, sig);
  return syscall(SYS_rt_sigtimedwait, &s, si, &(struct timespec){0, wait * 1e9}, 8);
}

static void pending(void) {
  siginfo_t si = {0};
  CHECK(take(BLOCKED, &si, 0.2) == BLOCKED && si.si_value.sival_int == 99 && si.si_code == SI_TIMER && si.si_timerid == blocked && si.si_overrun == 0,
        "signal of the blocked timer: value %d code %d timer %d overrun %d", si.si_value.sival_int, si.si_code, si.si_timerid, si.si_overrun);
  CHECK(take(BLOCKED, &si, 0) < 0, "it is there twice");
  struct itimerspec s = get(blocked);
  CHECK(seconds(s.it_interval) == 50 && seconds(s.it_value) > 20 && seconds(s.it_value) <= 50, "blocked timer: %f left", seconds(s.it_value));
  CHECK(take(ONCE, &si, 0.2) == ONCE && si.si_value.sival_int == 98 && si.si_code == SI_TIMER, "signal of the one-shot timer");
  CHECK(take(ONCE, &si, 0) < 0 && get(once).it_value.tv_sec == 0 && get(once).it_value.tv_nsec == 0);
  set(blocked, 0.001, 50);
  set(once, 0.001, 0);
  usleep(10000);
}

static void verify(void) {
  static struct timespec last;
  left("slow", slow, 7.5);
  left("none", none, 0);
  left("cpu", cpu, 3);
  left("thread cpu", thread_cpu, 0);
  left("absolute", absolute, 0);
  left("tai", boot, 0);
  clock_gettime(CLOCK_MONOTONIC, &last);
  since = last;
  CHECK(seconds(get(sleepy).it_value) == 0 && seconds(get(idle).it_value) == 0, "a timer that was not set runs");
  pending();
  int f = fast, l = threaded, v = vtalrm;
  // Up to fifteen seconds: on a busy machine little of them is this program's.
  for (int i = 0; i < 3000 && (fast < f + 3 || threaded < l + 3 || vtalrm < v + 3); i++) {
    struct timespec t;
    do clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), clock_gettime(CLOCK_MONOTONIC, &t);  // burn time for ITIMER_VIRTUAL
    while (seconds(t) - seconds(last) < 0.005 * (i + 1));
  }
  CHECK(fast >= f + 3 && !fast_bad, "the worker's timer: %d then %d, bad %d", f, fast, fast_bad);
  CHECK(threaded >= l + 3, "SIGEV_THREAD: %d then %d", l, threaded);
  CHECK(vtalrm >= v + 3, "ITIMER_VIRTUAL: %d then %d", v, vtalrm);
  struct itimerval i;
  getitimer(ITIMER_REAL, &i);
  CHECK(i.it_value.tv_sec <= LONG && i.it_value.tv_sec > LONG - 200 && i.it_interval.tv_sec == 11 && i.it_interval.tv_usec == 500000, "ITIMER_REAL: %ld", i.it_value.tv_sec);
  getitimer(ITIMER_PROF, &i);
  CHECK(i.it_value.tv_sec <= LONG && i.it_value.tv_sec > LONG - 200 && i.it_interval.tv_sec == 0, "ITIMER_PROF: %ld", i.it_value.tv_sec);
  // New timers get ids of their own, and work.
  siginfo_t si;
  int id = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 5, 5, 0);
  CHECK(id > idle && set(id, 0.001, 0) == 0 && take(SIGRTMIN + 5, &si, 0.9) == SIGRTMIN + 5 && si.si_timerid == id, "new timer %d", id);
  CHECK(syscall(SYS_timer_delete, id) == 0);
}

int main(void) {
  sigset_t s;
  sigfillset(&s);
  sigdelset(&s, SIGVTALRM);
  pthread_sigmask(SIG_SETMASK, &s, NULL);
  sigaction(FAST, &(struct sigaction){.sa_sigaction = on_fast, .sa_flags = SA_SIGINFO | SA_RESTART}, NULL);
  sigaction(SIGVTALRM, &(struct sigaction){.sa_handler = on_vtalrm, .sa_flags = SA_RESTART}, NULL);
  clock_gettime(CLOCK_MONOTONIC, &since);
  prepare();
  serve(verify);
}
