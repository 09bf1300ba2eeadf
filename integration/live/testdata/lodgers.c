/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A program whose memory other processes have in common with it, from when it is asked
 * for them: a child, and a sibling of a process below. All of them write to it all the
 * time, each to pages of its own.
 */
#include "control.h"

#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PAGES 2048
#define WORDS (4096 / sizeof(uint64_t))
enum { KCMP_VM = 1, KCMP_FILES = 2, KCMP_SIGHAND = 4 };

/* What a process writes: every word of a page is a count and its place. */
struct room {
  uint64_t (*page)[WORDS];
  volatile uint64_t count;
  volatile int stop, stopped;
};

static void writes(struct room *r) {
  for (uint64_t n = r->count;; n++) {
    uint64_t *p = r->page[n % PAGES];
    for (unsigned i = 0; i < WORDS; i++) p[i] = n << 16 | i;
    r->count = n + 1;
    while (r->stop) r->stopped = 1, syscall(SYS_sched_yield);
    r->stopped = 0;
  }
}

static int lodger(void *room) {
  writes(room);
  return 0;
}

static void whole(struct room *r) {
  r->stop = 1;
  while (!r->stopped) usleep(1000);
  uint64_t last = r->count - 1;
  for (uint64_t n = last < PAGES ? 0 : last - PAGES + 1; n <= last; n++)
    for (unsigned i = 0; i < WORDS; i++)
      if (r->page[n % PAGES][i] != (n << 16 | i) && !wrong[0])
        snprintf(wrong, sizeof wrong, "word %u of page %lu is %#lx at count %lu", i, (long)(n % PAGES), r->page[n % PAGES][i], last);
  r->stop = 0;
  while (r->stopped) usleep(1000);
}

static void *area(size_t n, int flags) {
  void *p = mmap(0, n, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) exit(1);
  return p;
}

static void *stack(void) { return (char *)area(1 << 16, MAP_PRIVATE) + (1 << 16); }

static int same(pid_t a, pid_t b, int what) { return syscall(SYS_kcmp, a, b, what, 0, 0) == 0; }

static struct room own;
static struct pair {
  volatile pid_t maker, made;
  volatile int question, answer;
} *pair;

static void pair_of_siblings(void) {
  static struct room r;
  r.page = area(PAGES * 4096, MAP_PRIVATE);
  pair->maker = getpid();
  pair->made = clone(lodger, stack(), CLONE_VM | CLONE_SIGHAND | CLONE_FILES | CLONE_PARENT | SIGCHLD, &r);
  for (;;) {
    while (!pair->question) usleep(1000);
    wrong[0] = 0;
    whole(&r);
    pair->answer = wrong[0] ? 2 : 1;
    pair->question = 0;
  }
}

int main(void) {
  control_open();
  uint64_t *ballast = area(48 << 20, MAP_PRIVATE);
  for (size_t i = 0; i < (48 << 20) / sizeof *ballast; i++) ballast[i] = i * 0x9e3779b97f4a7c15u;
  pair = area(4096, MAP_SHARED);
  own.page = area(PAGES * 4096, MAP_PRIVATE);
  pid_t child = 0;
  for (;;) {
    const char *what = asked();
    if (!strcmp(what, "lodge") && !child) {
      child = clone(lodger, stack(), CLONE_VM | CLONE_FS | SIGCHLD, &own);
      CHECK(child > 0);
      if (fork() == 0) pair_of_siblings();
      while (!pair->made) usleep(1000);
    }
    if (child) {
      whole(&own);
      CHECK(same(getpid(), child, KCMP_VM) && !same(getpid(), child, KCMP_FILES));
      CHECK(same(pair->maker, pair->made, KCMP_VM) && same(pair->maker, pair->made, KCMP_SIGHAND) && same(pair->maker, pair->made, KCMP_FILES));
      CHECK(!same(pair->maker, child, KCMP_VM));
      pair->question = 1;
      while (pair->question) usleep(1000);
      CHECK(pair->answer == 1);
      CHECK(waitpid(-1, NULL, WNOHANG) == 0);
    }
    for (size_t i = 0; i < (48 << 20) / sizeof *ballast; i++) CHECK(ballast[i] == i * 0x9e3779b97f4a7c15u);
    verdict();
  }
}
