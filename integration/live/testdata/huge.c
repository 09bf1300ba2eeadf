/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A program with memory of huge pages of every kind, to which it writes all the time:
 * private, shared with a child, a memfd, System V shared memory that it has attached
 * and that nobody has, files on a hugetlbfs, mapped and closed, and a reservation that is
 * larger than what it uses.
 */
#include "control.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/shm.h>
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

static int segment(key_t key, int pages) {
  int id = shmget(key, pages * HUGE, IPC_CREAT | IPC_EXCL | 0600 | SHM_HUGETLB | HUGE_2MB);
  if (id < 0) perror("shmget"), exit(1);
  return id;
}

static unsigned long *attached(int id) {
  void *p = shmat(id, 0, 0);
  if (p == (void *)-1) perror("shmat"), exit(1);
  return p;
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
  int id = segment(0x4875, 2), left = segment(0x4876, 3);
  unsigned long *sysv = attached(id), *quiet = attached(left);
  step(quiet + WORDS, 78);
  if (shmdt(quiet)) return 1;
  int named = open("/hugefs/named", O_RDWR | O_CREAT, 0600), closed = open("/hugefs/closed", O_RDWR | O_CREAT, 0600);
  if (named < 0 || closed < 0 || ftruncate(named, 3 * HUGE) || ftruncate(closed, HUGE)) return 1;
  unsigned long *there = mmap(0, 3 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, named, 0);
  unsigned long *once = mmap(0, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, closed, 0);
  if (there == MAP_FAILED || once == MAP_FAILED) return 1;
  step(once, 79);
  if (munmap(once, HUGE) || close(closed)) return 1;
  unsigned long *last = own + (RESERVED - 1) * WORDS;
  step(last, 77);
  struct pollfd p = {control, POLLIN, 0};
  for (;; count++) {
    step(own, count), step(shared + WORDS, count), step(file, count), step(sysv, count), step(there, count);
    /* A part of a page, and a whole one, that hold something now and then. */
    memset(there + WORDS, count & 1 ? 0 : 7, HUGE / 2);
    memset(there + 2 * WORDS, count & 2 ? 0 : 8, HUGE);
    if (poll(&p, 1, 0) != 1 || !asked()[0]) continue;
    whole("private", own, count), whole("shared", shared + WORDS, count), whole("memfd", file, count), whole("the last", last, 77), whole("segment", sysv, count), whole("named file", there, count);
    CHECK(huge_kb() == 8 * 2048);
    CHECK(own[WORDS] == 0); /* is made now */
    madvise(own + WORDS, HUGE, MADV_DONTNEED);
    struct stat st;
    CHECK(!fstat(fd, &st) && st.st_blksize == HUGE && st.st_size == 2 * HUGE);
    CHECK(shmget(0x4875, 0, 0) == id && shmget(0x4876, 0, 0) == left);
    for (unsigned long i = 0; i < HUGE; i++) {
      char half = i < HUGE / 2 && !(count & 1) ? 7 : 0, all = count & 2 ? 0 : 8;
      if ((((char *)(there + WORDS))[i] != half || ((char *)(there + 2 * WORDS))[i] != all) && !wrong[0]) snprintf(wrong, sizeof wrong, "named file: byte %lu at count %lu", i, count);
    }
    closed = open("/hugefs/closed", O_RDWR);
    once = mmap(0, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, closed, 0);
    if (once == MAP_FAILED || close(closed)) return 1;
    whole("closed file", once, 79);
    munmap(once, HUGE);
    struct stat a, b;
    CHECK(!fstat(named, &a) && !stat("/hugefs/named", &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev && a.st_size == 3 * HUGE);
    quiet = attached(left);
    whole("the segment that nobody has", quiet + WORDS, 78);
    CHECK(!shmdt(quiet));
    struct shmid_ds ds;
    CHECK(!shmctl(id, IPC_STAT, &ds) && ds.shm_nattch == 1 && ds.shm_segsz == 2 * HUGE);
    verdict();
  }
}
