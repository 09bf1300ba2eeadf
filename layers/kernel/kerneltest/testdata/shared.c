// SPDX-License-Identifier: Apache-2.0
//
// Processes that share memory without a file: counters, a large object that is
// mostly holes, and parts of objects at other addresses and protections.
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/wait.h>

#include "kerneltest.h"

enum { CHILDREN = 3, PAGE = 4096 };
static const size_t large = 1UL << 30;

struct counter { volatile long ticks, bad; };
static struct counter *counters; // one page each
static volatile unsigned char *holes;
static char *parts; // ten pages: the third is not mapped, the sixth is read-only
static char *moved; // of the child: the parts' last page elsewhere
static pid_t pids[CHILDREN];

static struct counter *counter(int n) { return (void *)((char *)counters + n * PAGE); }

static void child(int n) {
  long own = 0;
  moved = mremap(parts + 9 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)(0x10000000000 + n * 0x100000L));
  MUST(moved != MAP_FAILED);
  for (;;) {
    struct counter *c = counter(n);
    if (c->ticks != own || holes[large - 1] != 77 || moved[5] != 'z') c->bad++;
    c->ticks = ++own;
    usleep(1000);
  }
}

static void verify(void) {
  long before[CHILDREN];
  for (int n = 0; n < CHILDREN; n++) before[n] = counter(n)->ticks;
  moved[7]++; // seen by the children's own mapping of it
  usleep(50000);
  for (int n = 0; n < CHILDREN; n++) {
    CHECK(counter(n)->ticks > before[n], "child %d stands still at %ld", n, before[n]);
    CHECK(counter(n)->bad == 0, "child %d found %ld", n, counter(n)->bad);
    CHECK(waitpid(pids[n], NULL, WNOHANG) == 0);
  }
  CHECK(holes[0] == 11 && holes[large / 2] == 33 && holes[large - 1] == 77 && holes[large / 4] == 0);
  for (int i = 0; i < 10; i++)
    if (i != 2 && i != 9) CHECK(parts[i * PAGE + 1] == 'a' + i, "part %d", i);
  parts[3 * PAGE]++;
  unsigned char v[10];
  CHECK(mincore(parts + 2 * PAGE, PAGE, v) < 0 && errno == ENOMEM);
  FILE *f = fopen("/proc/self/maps", "r");
  char line[512];
  int zero = 0;
  while (f && fgets(line, sizeof line, f)) zero += strstr(line, "/dev/zero (deleted)") != NULL;
  if (f) fclose(f);
  CHECK(zero >= 5, "%d mappings of /dev/zero", zero);
}

int main(void) {
  int how = PROT_READ | PROT_WRITE;
  counters = mmap(NULL, CHILDREN * PAGE, how, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  holes = mmap(NULL, large, how, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  parts = mmap(NULL, 10 * PAGE, how, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  MUST(counters != MAP_FAILED && holes != MAP_FAILED && parts != MAP_FAILED);
  holes[0] = 11, holes[large / 2] = 33, holes[large - 1] = 77;
  for (int i = 0; i < 10; i++) parts[i * PAGE + 1] = 'a' + i;
  parts[9 * PAGE + 5] = 'z';
  MUST(munmap(parts + 2 * PAGE, PAGE) == 0 && mprotect(parts + 5 * PAGE, PAGE, PROT_READ) == 0);
  for (int n = 0; n < CHILDREN; n++) {
    pids[n] = fork();
    MUST(pids[n] >= 0);
    if (pids[n] == 0) child(n);
  }
  moved = parts + 9 * PAGE;
  usleep(20000);
  serve(verify);
}
