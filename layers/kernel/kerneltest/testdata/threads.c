// SPDX-License-Identifier: Apache-2.0
//
// Threads with names, ids, rseq, robust mutexes and futex waits that last
// across the restore. argv[1] is how many threads.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

#include "kerneltest.h"

static int count;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER, robust;
static pthread_cond_t go = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static int turn, finished, started;
static __thread int mine;
static __thread char name[16];

static long head(void) {
  void *h = NULL;
  size_t len = 0;
  if (syscall(SYS_get_robust_list, 0, &h, &len) != 0) return 0;
  return (long)h;
}

struct self { pthread_t id; int tid, n, slack; long robust; };
static struct self *all;
static volatile int hold_and_die;

static struct rseq *rseq(void) { return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset); }

static void check_self(struct self *s) {
  char now[16];
  CHECK(gettid() == s->tid, "thread %d has id %d, had %d", s->n, gettid(), s->tid);
  CHECK(mine == s->n, "thread-local %d in thread %d", mine, s->n);
  prctl(PR_GET_NAME, now);
  CHECK(strcmp(now, name) == 0, "thread %d is called %s, was %s", s->n, now, name);
  CHECK(head() == s->robust, "robust list %lx, was %lx", head(), s->robust);
  CHECK(prctl(PR_GET_TIMERSLACK) == s->slack, "timer slack of thread %d is %d, was %d", s->n, prctl(PR_GET_TIMERSLACK), s->slack);
  if (__rseq_size) {
    // The kernel keeps cpu_id true only while the area is registered.
    cpu_set_t set, old;
    sched_getaffinity(0, sizeof old, &old);
    for (int c = 0; c < 2; c++) {
      if (!CPU_ISSET(c, &old)) continue;
      CPU_ZERO(&set);
      CPU_SET(c, &set);
      if (sched_setaffinity(0, sizeof set, &set) == 0)
        CHECK(rseq()->cpu_id == (uint32_t)c, "rseq of thread %d says cpu %d on %d", s->n, rseq()->cpu_id, c);
    }
    sched_setaffinity(0, sizeof old, &old);
  }
}

static void *run(void *arg) {
  struct self *s = arg;
  int seen;
  mine = s->n;
  s->tid = gettid();
  snprintf(name, sizeof name, "worker-%d", s->n);
  pthread_setname_np(pthread_self(), name);
  prctl(PR_SET_TIMERSLACK, 60000 + s->n);
  s->slack = prctl(PR_GET_TIMERSLACK);
  s->robust = head();
  pthread_mutex_lock(&mu);
  started++;
  seen = turn;
  pthread_cond_signal(&done);
  for (;;) {
    while (turn == seen) pthread_cond_wait(&go, &mu);  // a futex wait
    seen = turn;
    check_self(s);
    if (hold_and_die == s->n) {
      pthread_mutex_unlock(&mu);
      pthread_mutex_lock(&robust);
      pthread_mutex_lock(&mu);
      finished++;
      pthread_cond_signal(&done);
      pthread_mutex_unlock(&mu);
      return NULL;
    }
    finished++;
    pthread_cond_signal(&done);
  }
}

static void spawn(int n) {
  pthread_attr_t a;
  pthread_attr_init(&a);
  pthread_attr_setstacksize(&a, 128 << 10);
  all[n].n = n;
  MUST(pthread_create(&all[n].id, &a, run, &all[n]) == 0);
}

static void make_robust(void) {
  pthread_mutexattr_t a;
  pthread_mutexattr_init(&a);
  pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&robust, &a);
}

static void verify(void) {
  pthread_mutex_lock(&mu);
  hold_and_die = 1;  // dies with the robust mutex held
  finished = 0;
  turn++;
  pthread_cond_broadcast(&go);
  while (finished < count) pthread_cond_wait(&done, &mu);
  pthread_mutex_unlock(&mu);
  // The join waits on the address that the kernel clears at the exit.
  CHECK(pthread_join(all[1].id, NULL) == 0);
  CHECK(pthread_mutex_lock(&robust) == EOWNERDEAD, "the dead owner of a robust mutex was not noticed");
  pthread_mutex_consistent(&robust);
  pthread_mutex_unlock(&robust);
  pthread_mutex_lock(&mu);
  started = 0;
  spawn(1);
  while (started < 1) pthread_cond_wait(&done, &mu);
  pthread_mutex_unlock(&mu);
  CHECK(getpid() == 1 && gettid() == 1, "pid %d", getpid());
}

int main(int argc, char **argv) {
  count = atoi(argv[1]);
  all = calloc(count + 1, sizeof *all);
  make_robust();
  pthread_mutex_lock(&mu);
  for (int i = 1; i <= count; i++) spawn(i);
  while (started < count) pthread_cond_wait(&done, &mu);
  pthread_mutex_unlock(&mu);
  serve(verify);
}
