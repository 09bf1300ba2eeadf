/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A program with memory of huge pages of every kind, to which it writes all the time:
 * private, shared with a child, a memfd, and a reservation that is larger than what
 * it uses.
 */
#include "control.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4U
#endif
#define HUGE_2MB (21 << 26)
#define HUGE (2UL << 20)
#define WORDS (HUGE / sizeof(unsigned long))
/* as integration/live/huge_test.go counts them */
#define RESERVED 100

static unsigned long *area(int pages, int flags) {
  void *p = mmap(0, pages * HUGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_HUGETLB | HUGE_2MB, -1, 0);
  if (p == MAP_FAILED) perror("mmap"), exit(1);
  return p;
}

/* Every word of a page is a count and its place; all counts of a page are equal when
 * nobody writes. */
static void step(unsigned long *page, unsigned long count) {
  for (unsigned long i = 0; i < WORDS; i++) page[i] = count << 32 | i;
}

static void whole(const char *what, const unsigned long *page, unsigned long count) {
  for (unsigned long i = 0; i < WORDS; i++)
    if (page[i] != (count << 32 | i) && !wrong[0]) snprintf(wrong, sizeof wrong, "%s: word %lu is %#lx at count %lu", what, i, page[i], count);
}

static unsigned huge_kb(void) {
  FILE *f = fopen("/proc/self/status", "r");
  char line[128];
  unsigned n = 0;
  while (f && fgets(line, sizeof line, f)) sscanf(line, "HugetlbPages: %u kB", &n);
  if (f) fclose(f);
  return n;
}

int main(void) {
  control_open();
  unsigned long *own = area(RESERVED, MAP_PRIVATE), *shared = area(2, MAP_SHARED), count = 1;
  int fd = syscall(SYS_memfd_create, "huge", MFD_HUGETLB | HUGE_2MB);
  if (fd < 0 || ftruncate(fd, 2 * HUGE)) return 1;
  unsigned long *file = mmap(0, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (file == MAP_FAILED) return 1;
  unsigned long *last = own + (RESERVED - 1) * WORDS;
  step(last, 77);
  struct pollfd p = {control, POLLIN, 0};
  for (;; count++) {
    step(own, count), step(shared + WORDS, count), step(file, count);
    if (poll(&p, 1, 0) != 1 || !asked()[0]) continue;
    whole("private", own, count), whole("shared", shared + WORDS, count), whole("memfd", file, count), whole("the last", last, 77);
    CHECK(huge_kb() == 4 * 2048);
    CHECK(own[WORDS] == 0); /* is made now */
    madvise(own + WORDS, HUGE, MADV_DONTNEED);
    struct stat st;
    CHECK(!fstat(fd, &st) && st.st_blksize == HUGE && st.st_size == 2 * HUGE);
    verdict();
  }
}
