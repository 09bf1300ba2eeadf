// SPDX-License-Identifier: Apache-2.0
//
// Memory of every kind, filled with a pattern. argv[1] is a file to map.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "kerneltest.h"

#define MB (1 << 20)
#define SYS_MSEAL 462
#define PAGE 4096
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

static uint32_t generation;
static char *sealed, *sealed_exec;
static long huge_before;

static void fill(char *p, size_t n, uint32_t seed) {
  uint32_t *w = (uint32_t *)p;
  for (size_t i = 0; i < n / 4; i++) w[i] = (uint32_t)(i * 2654435761u) ^ seed;
}

static void compare(const char *what, const char *p, size_t n, uint32_t seed) {
  const uint32_t *w = (const uint32_t *)p;
  for (size_t i = 0; i < n / 4; i++)
    if (w[i] != ((uint32_t)(i * 2654435761u) ^ seed)) {
      CHECK(0, "%s at %p differs", what, (void *)&w[i]);
      return;
    }
}

// flags returns the VmFlags of the mapping that holds addr, between spaces,
// and its size in KB on huge pages.
static char *flags(const void *addr, long *huge) {
  static char line[1024], out[256];
  FILE *f = fopen("/proc/self/smaps", "r");
  out[0] = 0;
  *huge = -1;
  int in = 0;
  while (f && fgets(line, sizeof line, f)) {
    unsigned long a, b;
    if (sscanf(line, "%lx-%lx ", &a, &b) == 2) in = a <= (unsigned long)addr && (unsigned long)addr < b;
    if (in) sscanf(line, "AnonHugePages: %ld", huge);
    if (in && strncmp(line, "VmFlags:", 8) == 0) snprintf(out, sizeof out, "%.200s", line + 8);
  }
  if (f) fclose(f);
  return out;
}

static int has(const void *addr, const char *flag) {
  long huge;
  char want[8];
  snprintf(want, sizeof want, " %s ", flag);
  return strstr(flags(addr, &huge), want) != NULL;
}

static char *map(size_t n, int prot, int fl) {
  char *p = mmap(NULL, n, prot, MAP_PRIVATE | MAP_ANONYMOUS | fl, -1, 0);
  MUST(p != MAP_FAILED);
  return p;
}

static char *heap, *sparse, *none, *readonly, *thp, *private, *shared, *guarded, *down, *locked, *droppable, *code, *brk0;
static struct { char *p; int advice; const char *flag; } advised[] = {
    {0, MADV_SEQUENTIAL, "sr"}, {0, MADV_RANDOM, "rr"},   {0, MADV_DONTFORK, "dc"},  {0, MADV_DONTDUMP, "dd"},
    {0, MADV_HUGEPAGE, "hg"},   {0, MADV_NOHUGEPAGE, "nh"}, {0, MADV_WIPEONFORK, "wf"},
};
#define ADVISED (sizeof advised / sizeof *advised)

// levels of a deep stack, each with a pattern of its own.
struct level {
  struct level *up;
  int depth;
  char data[3000];
};
static struct level *deepest;

static void prepare(const char *path) {
  heap = malloc(3 * MB);
  fill(heap, 3 * MB, 1);
  sparse = map(64 * MB, PROT_READ | PROT_WRITE, MAP_NORESERVE);
  for (int i = 0; i < 64; i++) fill(sparse + i * MB + i * PAGE, PAGE, 100 + i);
  none = map(8 * PAGE, PROT_READ | PROT_WRITE, 0);
  fill(none, 8 * PAGE, 2);
  MUST(mprotect(none, 8 * PAGE, PROT_NONE) == 0);
  readonly = map(8 * PAGE, PROT_READ | PROT_WRITE, 0);
  fill(readonly, 8 * PAGE, 3);
  MUST(mprotect(readonly, 8 * PAGE, PROT_READ) == 0);
  thp = (char *)(((uintptr_t)map(8 * MB, PROT_READ | PROT_WRITE, 0) + 2 * MB - 1) & ~(2ul * MB - 1));
  MUST(madvise(thp, 4 * MB, MADV_HUGEPAGE) == 0);
  fill(thp, 4 * MB, 4);

  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
  MUST(fd >= 0 && ftruncate(fd, 16 * PAGE) == 0);
  char page[PAGE];
  for (int i = 0; i < 16; i++) {
    fill(page, PAGE, 200 + i);
    MUST(pwrite(fd, page, PAGE, i * PAGE) == PAGE);
  }
  private = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  MUST(private != MAP_FAILED);
  for (int i = 0; i < 16; i += 3) fill(private + i * PAGE, PAGE, 300 + i);
  shared = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4 * PAGE);
  MUST(shared != MAP_FAILED);
  fill(shared + PAGE, PAGE, 400);
  close(fd);

  guarded = map(16 * PAGE, PROT_READ | PROT_WRITE, 0);
  fill(guarded, 16 * PAGE, 5);
  if (madvise(guarded + 4 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL) != 0) guarded = NULL;
  down = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_GROWSDOWN);
  fill(down, 4 * PAGE, 6);
  locked = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
  MUST(mlock(locked, 4 * PAGE) == 0);
  fill(locked, 4 * PAGE, 7);
  droppable = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
  if (droppable != MAP_FAILED) memset(droppable, 0x55, PAGE);
  code = map(PAGE, PROT_READ | PROT_WRITE, 0);
  memcpy(code, "\xb8\x2a\x00\x00\x00\xc3", 6);  // mov eax, 42; ret
  MUST(mprotect(code, PAGE, PROT_READ | PROT_EXEC) == 0);
  for (size_t i = 0; i < ADVISED; i++) {
    advised[i].p = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    fill(advised[i].p, 4 * PAGE, 500 + i);
    MUST(madvise(advised[i].p, 4 * PAGE, advised[i].advice) == 0);
  }
  sealed = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
  fill(sealed, 4 * PAGE, 11);
  sealed_exec = map(PAGE, PROT_READ | PROT_WRITE, 0);
  MUST(mprotect(sealed_exec, PAGE, PROT_READ) == 0);
  if (syscall(SYS_MSEAL, sealed, 4 * PAGE, 0) != 0 || syscall(SYS_MSEAL, sealed_exec, PAGE, 0) != 0) sealed = NULL;
  brk0 = sbrk(5 * PAGE);
  MUST(brk0 != (void *)-1);
  fill(brk0, 5 * PAGE, 8);
}

static void files(void) {
  char page[PAGE];
  for (int i = 0; i < 16; i++) compare("private file page", private + i * PAGE, PAGE, (i % 3 ? (i == 5 ? 400 : 200 + i) : 300 + i));
  compare("shared file page", shared + PAGE, PAGE, 400);
  fill(page, PAGE, 204);
  CHECK(memcmp(shared, page, PAGE) == 0, "shared page 0");
  fill(shared + 2 * PAGE, PAGE, 200 + 6);  // may still be written
}

static void kinds(void) {
  long huge;
  CHECK(has(down, "gd") && strstr(flags(locked, &huge), " lo "), "flags of grown or locked memory");
  compare("growing", down, 4 * PAGE, 6);
  compare("locked", locked, 4 * PAGE, 7);
  for (size_t i = 0; i < ADVISED; i++) {
    CHECK(has(advised[i].p, advised[i].flag), "advice %s was lost", advised[i].flag);
    compare("advised", advised[i].p, 4 * PAGE, 500 + i);
  }
  if (guarded) {
    int p[2];
    CHECK(pipe(p) == 0);
    for (int i = 0; i < 16; i++) {
      ssize_t n = write(p[1], guarded + i * PAGE, 8);  // a guard page gives EFAULT here
      int guard = i == 4 || i == 5;
      CHECK((n == 8) == !guard, "guard page %d: %zd", i, n);
    }
    compare("guarded", guarded, 4 * PAGE, 5);
    close(p[0]);
    close(p[1]);
  }
  if (droppable != MAP_FAILED) {
    // Random state may be in it: a copy must not have it, so it is either
    // whole (the original) or zero.
    CHECK(droppable[0] == (generation ? droppable[0] : 0x55) && (droppable[0] == 0x55 || droppable[0] == 0), "droppable %#x", droppable[0]);
    CHECK(has(droppable, "dp"), "droppable no more");
  }
  CHECK(((int (*)(void))code)() == 42);
  if (sealed) {
    compare("sealed", sealed, 4 * PAGE, 11);
    CHECK(munmap(sealed, PAGE) < 0 && errno == EPERM && has(sealed, "sl"), "a sealed mapping is open");
    CHECK(mprotect(sealed_exec, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EPERM, "a sealed mapping is open");
  }
}

static void verify(void) {
  compare("heap", heap, 3 * MB, 1);
  for (int i = 0; i < 64; i++) compare("sparse", sparse + i * MB + i * PAGE, PAGE, 100 + i);
  CHECK(sparse[33 * MB - 1] == 0, "a hole is filled");
  int p[2];
  CHECK(pipe(p) == 0 && write(p[1], none, 8) < 0 && errno == EFAULT, "PROT_NONE can be read");
  close(p[0]);
  close(p[1]);
  CHECK(mprotect(none, 8 * PAGE, PROT_READ) == 0);
  compare("PROT_NONE", none, 8 * PAGE, 2);
  CHECK(mprotect(none, 8 * PAGE, PROT_NONE) == 0);
  compare("read-only", readonly, 8 * PAGE, 3);
  compare("huge", thp, 4 * MB, 4);
  long huge;
  CHECK(has(thp, "hg"), "MADV_HUGEPAGE was lost");
  flags(thp, &huge);
  CHECK(huge > 0 || huge_before <= 0, "%ld KB on huge pages, had %ld", huge, huge_before);
  huge_before = huge;
  files();
  kinds();
  int depth = 0;
  for (struct level *l = deepest; l; l = l->up, depth++)
    for (size_t i = 0; i < sizeof l->data; i++)
      if (l->data[i] != (char)(l->depth + i)) { CHECK(0, "stack level %d", l->depth); break; }
  CHECK(depth == 200, "%d levels", depth);

  char *now = sbrk(0);
  char *more = sbrk(2 * PAGE);  // the break grows from where it was
  CHECK(more == now && more >= brk0 + 5 * PAGE, "brk %p then %p", (void *)now, (void *)more);
  if (more == now) fill(more, 2 * PAGE, 9);
  compare("brk", brk0, 5 * PAGE, 8);
  CHECK(brk(now) == 0);
  char *fresh = malloc(8 * MB);
  fill(fresh, 8 * MB, 10);
  free(fresh);
  struct timespec ts;  // by the vDSO
  CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0 && (ts.tv_sec || ts.tv_nsec));
  CHECK(getauxval(AT_PAGESZ) == PAGE);
  generation++;
}

static void __attribute__((noinline)) deep(struct level *up, int n) {
  struct level l = {.up = up, .depth = n};
  for (size_t i = 0; i < sizeof l.data; i++) l.data[i] = (char)(n + i);
  deepest = &l;
  if (n == 199) serve(verify);
  deep(&l, n + 1);
  l.data[0]++;  // keeps the frame: no tail call
}

int main(int argc, char **argv) {
  prepare(argv[1]);
  deep(NULL, 0);
}
