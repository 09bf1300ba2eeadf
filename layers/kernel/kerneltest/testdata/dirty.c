// SPDX-License-Identifier: Apache-2.0
//
// Threads that write checksummed pages all the time. Arguments: megabytes,
// threads, megabytes per second that each thread writes (0: nothing, -1: as fast
// as it can), and how many different contents pages have, if not each another one. The answer holds the longest silence in microseconds since the
// last one: the time in which the program did not run.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

#include "kerneltest.h"

enum { PAGE = 4096, WORDS = PAGE / 8, MAXTHREADS = 16 };

static uint64_t *memory;
static uint64_t *seeds;  // what each page holds
static size_t pages;
static int threads, rate;
static uint64_t distinct;
static pthread_mutex_t lock[MAXTHREADS];
static _Atomic long silence;
static _Atomic uint64_t writes;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t word(uint64_t seed, size_t page, size_t i) {
  if (distinct) seed %= distinct, page = 0;
  return (seed + i) * 0x9e3779b97f4a7c15ull ^ page * 0xff51afd7ed558ccdull;
}

static void put(size_t page, uint64_t seed) {
  uint64_t *w = memory + page * WORDS;
  for (size_t i = 0; i < WORDS; i++) w[i] = word(seed, page, i);
  seeds[page] = seed;
}

static void *writer(void *arg) {
  size_t me = (size_t)arg;
  uint64_t x = 88172645463325252ull + me, begun = now(), done = 0;
  for (;;) {
    if (rate >= 0 && done * PAGE >= (now() - begun) / 1000 * rate) {
      struct timespec nap = {0, 200000};
      nanosleep(&nap, NULL);
      continue;
    }
    pthread_mutex_lock(&lock[me]);
    for (int i = 0; i < 8; i++) {
      x ^= x << 13, x ^= x >> 7, x ^= x << 17;
      size_t page = x % (pages / threads) * threads + me;
      put(page, x);
      done++;
    }
    writes += 8;
    pthread_mutex_unlock(&lock[me]);
  }
  return NULL;
}

// watch notices when it did not run.
static void *watch(void *arg) {
  (void)arg;
  for (uint64_t last = now();;) {
    struct timespec nap = {0, 50000};
    nanosleep(&nap, NULL);
    uint64_t t = now();
    long gap = (t - last) / 1000;
    if (gap > silence) silence = gap;
    last = t;
  }
  return NULL;
}

static void verify(void) {
  static uint64_t before;
  for (int i = 0; i < threads; i++) pthread_mutex_lock(&lock[i]);
  uint64_t seen = writes;
  size_t bad = 0, first = 0;
  for (size_t p = 0; p < pages; p++)
    for (size_t i = 0; i < WORDS; i++)
      if (memory[p * WORDS + i] != word(seeds[p], p, i)) {
        if (!bad++) first = p;
        break;
      }
  CHECK(bad == 0, "%zu of %zu pages differ, the first is %zu, with %d writers", bad, pages, first, threads);
  CHECK(rate == 0 || seen > before, "no thread writes");
  before = seen;
  for (int i = 0; i < threads; i++) pthread_mutex_unlock(&lock[i]);
}

int main(int argc, char **argv) {
  MUST(argc == 4 || argc == 5);
  pages = (size_t)atoi(argv[1]) << 8;
  threads = atoi(argv[2]);
  rate = atoi(argv[3]);
  if (argc == 5) distinct = atoi(argv[4]);
  memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  seeds = mmap(NULL, pages * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MUST(memory != MAP_FAILED && seeds != MAP_FAILED && threads <= MAXTHREADS);
  for (size_t p = 0; p < pages; p++) put(p, p);
  pthread_t t;
  for (int i = 0; i < threads; i++) {
    pthread_mutex_init(&lock[i], NULL);
    if (rate) MUST(pthread_create(&t, NULL, writer, (void *)(size_t)i) == 0);
  }
  MUST(pthread_create(&t, NULL, watch, NULL) == 0);
  ready();
  for (char c; read(0, &c, 1) == 1;) {
    if (c == 's') {  // the longest silence so far, without a look at the memory
      char line[64];
      int n = snprintf(line, sizeof line, "%ld\n", (long)silence);
      silence = 0;
      if (write(1, line, n) != n) exit(4);
      continue;
    }
    verify();
    answer();
  }
  exit(0);
}
