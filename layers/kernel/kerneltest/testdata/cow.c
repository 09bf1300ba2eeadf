// SPDX-License-Identifier: Apache-2.0
//
// A server with a large heap that forks workers, each of which writes to some of
// it: the rest is shared copy-on-write. Some workers unmap, protect or empty
// parts, or fork a worker of their own; the parent goes on writing, too.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "kerneltest.h"

enum { WORKERS = 9, PAGE = 4096 };
#define MB (1ul << 20)
static const size_t size = 64 * MB;
static uint64_t *heap;
static volatile struct { long asked, answered[WORKERS], bad[WORKERS]; } *board;
static pid_t pids[WORKERS];
static char data[3 * MB] = {1}; // of the executable, private to each

static uint64_t first(size_t page) { return page * 0x9e3779b97f4a7c15ul + 1; }

static void fill(size_t from, size_t n, uint64_t seed) {
  for (size_t p = from; p < from + n; p++) heap[p * PAGE / 8] = heap[p * PAGE / 8 + 511] = first(p) ^ seed;
}

// differing counts the pages of a range that are not as seed made them.
static long differing(size_t from, size_t n, uint64_t seed) {
  long bad = 0;
  for (size_t p = from; p < from + n; p++)
    bad += heap[p * PAGE / 8] != (first(p) ^ seed) || heap[p * PAGE / 8 + 511] != (first(p) ^ seed);
  return bad;
}

static const size_t pages = 64 * MB / PAGE, per = MB / PAGE;

static size_t own(int n) { return (n + 1) * 5 * per; }

// what worker n changes beside its own megabyte.
static void change(int n) {
  fill(own(n), per, 1000 + n);
  memset(data, n + 2, MB);
  if (n == 2) MUST(madvise((char *)heap + own(n) * PAGE + MB, MB, MADV_DONTNEED) == 0);
  if (n == 3) MUST(munmap((char *)heap + own(n) * PAGE + MB, MB) == 0);
  if (n == 4) MUST(mprotect((char *)heap + own(n) * PAGE + MB, MB, PROT_READ) == 0);
  if (n == 5) // every second page
    for (size_t p = own(n) + per; p < own(n) + 2 * per; p += 2) fill(p, 1, 77);
}

static long wrong(int n) {
  long bad = differing(own(n), per, 1000 + n);
  size_t beside = own(n) + per;
  if (n == 2)
    for (size_t p = beside; p < beside + per; p++) bad += heap[p * PAGE / 8] != 0;
  else if (n == 5)
    for (size_t p = beside; p < beside + per; p++) bad += differing(p, 1, (p - beside) % 2 ? 0 : 77);
  else if (n != 3)
    bad += differing(beside, per, 0);
  unsigned char in;
  if (n == 3) bad += mincore((char *)heap + beside * PAGE, PAGE, &in) == 0;
  bad += differing(0, own(n), 0) + differing(beside + per, pages - beside - per, 0); // as it was at the fork
  if (n == 8) bad -= differing(own(7), per, 0); // its maker's
  return bad + (data[0] != n + 2) + (data[2 * MB] != 0);
}

static void work(int n) {
  MUST(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
  change(n);
  if (n == 7) {
    MUST((pids[8] = fork()) >= 0);
    if (pids[8] == 0) work(8);
  }
  board->bad[n] = wrong(n);
  for (long seen = -1;; usleep(1000)) {
    if (seen == board->asked) continue;
    seen = board->asked;
    board->bad[n] = wrong(n);
    heap[own(n) * PAGE / 8 + 5] = seen; // its own page still is
    board->answered[n] = seen;
  }
}

static void verify(void) {
  board->asked++;
  for (int n = 0; n < WORKERS; n++) {
    for (int i = 0; i < 10000 && board->answered[n] != board->asked; i++) usleep(1000);
    CHECK(board->answered[n] == board->asked, "worker %d is silent", n);
    CHECK(board->bad[n] == 0, "worker %d finds %ld pages wrong", n, board->bad[n]);
    CHECK(n == 8 || waitpid(pids[n], NULL, WNOHANG) == 0);
  }
  CHECK(differing(0, per / 8, 5) == 0 && differing(per / 8, pages - per / 8, 0) == 0, "the parent's pages");
}

int main(int argc, char **argv) {
  heap = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  MUST(heap != MAP_FAILED && board != MAP_FAILED);
  fill(0, pages, 0);
  for (int n = 0; n < WORKERS - 1; n++) {
    MUST((pids[n] = fork()) >= 0);
    if (pids[n] == 0) work(n);
  }
  board->asked = 1;
  for (int n = 0; n < WORKERS; n++)
    while (board->answered[n] != 1) usleep(1000);
  fill(0, per / 8, 5); // the workers have what was there before
  serve(verify);
}
