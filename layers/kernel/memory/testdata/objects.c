// SPDX-License-Identifier: Apache-2.0
//
// Mapped files that no path leads to: memfds with several mappings, with seals,
// private ones, files that were removed, replaced or never had a name. argv[1]
// is a directory for the latter.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "kerneltest.h"

enum { PAGE = 4096, PAGES = 16, SIZE = PAGE * PAGES };
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static char path[512];
static pid_t child;
static long round;

static char *map(int fd, int prot, int how) {
  char *p = mmap(NULL, SIZE, prot, how, fd, 0);
  MUST(p != MAP_FAILED);
  return p;
}

static int memfd(const char *name) {
  int fd = memfd_create(name, MFD_ALLOW_SEALING);
  MUST(fd >= 0 && ftruncate(fd, SIZE) == 0);
  return fd;
}

static int made(const char *name, int how) {
  char full[600];
  snprintf(full, sizeof full, "%s/%s", path, name);
  int fd = open(full, how | O_RDWR, 0640);
  MUST(fd >= 0);
  return fd;
}

static void gone(const char *name) {
  char full[600];
  snprintf(full, sizeof full, "%s/%s", path, name);
  MUST(unlink(full) == 0);
}

// jit: two views of one object, with other protections and no descriptor.
static volatile unsigned char *writable;
static int (*code)(void);
// open: mapped and open, here and in the child.
static volatile char *opened;
static int opened_fd;
// future: sealed against new writers while one mapping writes on.
static volatile char *future;
static int future_fd;
// sealed: read-only for good.
static const char *sealed;
static int sealed_fd;
static char *private, *replaced, *nameless;
static volatile char *removed; // shared with the child
static int removed_fd;
static char *part; // the fifth page alone, of the opened memfd

static void prepare(void) {
  int fd = memfd("doublemapper");
  writable = (void *)map(fd, PROT_READ | PROT_WRITE, MAP_SHARED);
  code = (int (*)(void))map(fd, PROT_READ | PROT_EXEC, MAP_SHARED);
  memcpy((void *)writable, "\xb8\x2a\x00\x00\x00\xc3", 6); // mov eax, 42; ret
  close(fd);

  opened_fd = memfd("opened");
  opened = map(opened_fd, PROT_READ | PROT_WRITE, MAP_SHARED);
  for (int i = 0; i < PAGES; i += 3) memset((char *)opened + i * PAGE, 'a' + i, PAGE);
  MUST(lseek(opened_fd, 77, SEEK_SET) == 77 && fchmod(opened_fd, 0400) == 0);
  part = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, opened_fd, 5 * PAGE);
  MUST(part != MAP_FAILED);

  future_fd = memfd("future");
  future = map(future_fd, PROT_READ | PROT_WRITE, MAP_SHARED);
  MUST(fcntl(future_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) == 0);

  sealed_fd = memfd("sealed");
  MUST(pwrite(sealed_fd, "for good", 8, 3 * PAGE) == 8);
  MUST(fcntl(sealed_fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0);
  sealed = map(sealed_fd, PROT_READ, MAP_SHARED);

  fd = memfd("private");
  MUST(pwrite(fd, "below", 5, 0) == 5 && pwrite(fd, "below", 5, PAGE) == 5);
  private = map(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  strcpy(private, "above");
  close(fd);

  removed_fd = made("removed", O_CREAT);
  MUST(ftruncate(removed_fd, SIZE) == 0);
  removed = map(removed_fd, PROT_READ | PROT_WRITE, MAP_SHARED);
  gone("removed");

  fd = made("replaced", O_CREAT);
  MUST(ftruncate(fd, SIZE) == 0 && pwrite(fd, "old", 3, 2 * PAGE) == 3);
  replaced = map(fd, PROT_READ | PROT_EXEC, MAP_PRIVATE);
  close(fd);
  fd = made("new", O_CREAT);
  MUST(pwrite(fd, "new", 3, 2 * PAGE) == 3);
  close(fd);
  char a[600], b[600];
  snprintf(a, sizeof a, "%s/new", path);
  snprintf(b, sizeof b, "%s/replaced", path);
  MUST(rename(a, b) == 0);

  fd = made("", O_TMPFILE);
  MUST(ftruncate(fd, SIZE) == 0);
  nameless = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED);
  strcpy(nameless + 7 * PAGE, "nameless");
  close(fd);
}

static void answering(void) {
  for (long seen = 0;; usleep(500)) {
    long now = *(volatile long *)removed;
    if (now == seen) continue;
    seen = now;
    opened[100] = now % 100;
    *(volatile long *)(removed + 8) = now;
  }
}

static void verify(void) {
  round++;
  CHECK(code() == 42 + (round - 1) % 50, "%d", code());
  writable[1] = 42 + round % 50;
  CHECK(code() == 42 + round % 50, "the two views differ: %d", code());

  for (int i = 0; i < PAGES; i++)
    if (i != 6) CHECK(opened[i * PAGE + 200] == (i % 3 ? 0 : 'a' + i), "page %d", i);
  char c = 0;
  struct stat st;
  opened[5 * PAGE + 9] = round;
  CHECK(part[9] == (char)round && pread(opened_fd, &c, 1, 5 * PAGE + 9) == 1 && c == (char)round, "part of it");
  CHECK(fstat(opened_fd, &st) == 0 && (st.st_mode & 0777) == 0400 && st.st_size == SIZE, "mode %o", st.st_mode);
  CHECK(lseek(opened_fd, 0, SEEK_CUR) == 77);

  CHECK(future[9] == (char)(round - 1), "future %d", future[9]);
  future[9] = round;
  CHECK(pwrite(future_fd, "x", 1, 0) < 0 && errno == EPERM, "new writers are possible");
  CHECK(fcntl(future_fd, F_GET_SEALS) == (F_SEAL_FUTURE_WRITE | F_SEAL_GROW | F_SEAL_SHRINK));
  CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, future_fd, 0) == MAP_FAILED);
  CHECK(strcmp(sealed + 3 * PAGE, "for good") == 0 && fcntl(sealed_fd, F_GET_SEALS) == (F_SEAL_WRITE | F_SEAL_SEAL));
  CHECK(mprotect((void *)sealed, SIZE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES, "sealed memory became writable");

  CHECK(strcmp(private, "above") == 0 && strcmp(private + PAGE, "below") == 0);
  CHECK(memcmp(replaced + 2 * PAGE, "old", 3) == 0, "%.3s", replaced + 2 * PAGE);
  CHECK(strcmp(nameless + 7 * PAGE, "nameless") == 0);

  *(volatile long *)removed = round;
  for (int i = 0; i < 2000 && *(volatile long *)(removed + 8) != round; i++) usleep(1000);
  CHECK(*(volatile long *)(removed + 8) == round && opened[100] == round % 100, "the child is somewhere else");
  long fromfile;
  CHECK(pread(removed_fd, &fromfile, 8, 8) == 8 && fromfile == round, "the file is another one than the mapping");
  CHECK(fstat(removed_fd, &st) == 0 && st.st_nlink == 0);
  CHECK(waitpid(child, NULL, WNOHANG) == 0);
}

int main(int argc, char **argv) {
  snprintf(path, sizeof path, "%s", argv[1]);
  prepare();
  child = fork();
  MUST(child >= 0);
  if (child == 0) answering();
  serve(verify);
}
