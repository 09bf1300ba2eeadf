// SPDX-License-Identifier: Apache-2.0
//
// A tmpfs with one of each: files that are closed, open, mapped and hard links
// of each other, in directories, with owners, modes, times and attributes.
// usage: tree DIR BYTES
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "kerneltest.h"

static int open_file, fifo, dir;
static char *mapped;
static long big;
static int mine; // that only root may set was set
static int generation;

static void is(const char *name, const char *text) {
  char b[64] = {0};
  int f = open(name, O_RDONLY);
  CHECK(f >= 0 && read(f, b, sizeof b - 1) == (ssize_t)strlen(text) && !strcmp(b, text), "%s holds \"%s\"", name, b);
  close(f);
}

static void verify(void) {
  struct stat a, b;
  is("run/app/app.pid", "1\n");
  CHECK(stat("run/app/app.pid", &a) == 0 && (a.st_mode & 07777) == 0640 && a.st_mtim.tv_sec == 1234567890 && a.st_mtim.tv_nsec == 987654321);
  CHECK(!mine || (a.st_uid == 12 && a.st_gid == 13), "owner %d:%d", a.st_uid, a.st_gid);
  CHECK(stat("hard", &b) == 0 && a.st_ino == b.st_ino && b.st_nlink == 2, "hard link");
  char text[64] = {0};
  CHECK(readlink("run/link", text, sizeof text) == 11 && !memcmp(text, "app/app.pid", 11));
  CHECK(stat("empty", &a) == 0 && S_ISDIR(a.st_mode) && (a.st_mode & 07777) == 01777, "mode %o", a.st_mode);
  CHECK(stat("empty", &a) == 0 && a.st_mtim.tv_sec == 1234567890 && a.st_mtim.tv_nsec == 5);
  // The open, the mapped and the named file are one.
  CHECK(fstat(open_file, &a) == 0 && stat("run/app/log", &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev, "open file");
  generation++;
  CHECK(dprintf(open_file, "line %d\n", generation) > 0);
  snprintf(text, sizeof text, "line %d\n", generation);
  char back[64] = {0};
  CHECK(pread(open_file, back, strlen(text), lseek(open_file, 0, SEEK_CUR) - strlen(text)) == (ssize_t)strlen(text) && !strcmp(text, back), "log: %s", back);
  int f = open("shared", O_RDONLY);
  mapped[4097]++;
  char c;
  CHECK(f >= 0 && pread(f, &c, 1, 4097) == 1 && c == mapped[4097] && mapped[0] == 'm', "shared memory");
  close(f);
  for (long i = 0; i < big; i += 4096) CHECK(mapped[8192 + i] == (char)(i / 4096), "byte %ld of %ld", i, big);
  CHECK(fstat(fifo, &a) == 0 && stat("run/fifo", &b) == 0 && a.st_ino == b.st_ino, "FIFO");
  CHECK(fstat(dir, &a) == 0 && stat("run/app", &b) == 0 && a.st_ino == b.st_ino, "directory");
  CHECK(stat("sparse", &a) == 0 && a.st_size == 1L << 30 && a.st_blocks < 100, "%ld blocks", (long)a.st_blocks);
  CHECK(lgetxattr("hard", "user.note", text, sizeof text) == 4 || !mine || errno == ENOTSUP, "attribute");
}

static void put(const char *name, const char *text, int mode) {
  int f = open(name, O_WRONLY | O_CREAT, 0600);
  MUST(f >= 0 && write(f, text, strlen(text)) == (ssize_t)strlen(text) && fchmod(f, mode) == 0 && close(f) == 0);
}

int main(int argc, char **argv) {
  MUST(argc == 3 && chdir(argv[1]) == 0);
  big = atol(argv[2]);
  mine = geteuid() == 0;
  MUST(mkdir("run", 0755) == 0 && mkdir("run/app", 0700) == 0 && mkdir("empty", 0700) == 0 && chmod("empty", 01777) == 0);
  put("run/app/app.pid", "1\n", 0640);
  if (mine) MUST(chown("run/app/app.pid", 12, 13) == 0);
  MUST(link("run/app/app.pid", "hard") == 0 && symlink("app/app.pid", "run/link") == 0);
  if (setxattr("hard", "user.note", "note", 4, 0)) MUST(errno == ENOTSUP);
  MUST((open_file = open("run/app/log", O_RDWR | O_CREAT | O_APPEND, 0600)) >= 0);
  int f = open("shared", O_RDWR | O_CREAT, 0600);
  MUST(f >= 0 && ftruncate(f, 8192 + big) == 0);
  mapped = mmap(0, 8192 + big, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
  MUST(mapped != MAP_FAILED && close(f) == 0);
  mapped[0] = 'm';
  for (long i = 0; i < big; i += 4096) mapped[8192 + i] = i / 4096;
  MUST(mkfifo("run/fifo", 0600) == 0 && (fifo = open("run/fifo", O_RDWR)) >= 0);
  MUST((dir = open("run/app", O_RDONLY | O_DIRECTORY)) >= 0);
  MUST((f = open("sparse", O_RDWR | O_CREAT, 0600)) >= 0 && ftruncate(f, 1L << 30) == 0 && pwrite(f, "x", 1, 1L << 29) == 1 && close(f) == 0);
  MUST(unlink("run/app/none") == -1);
  struct timespec t[2] = {{1, 1}, {1234567890, 987654321}}, e[2] = {{1, 1}, {1234567890, 5}};
  MUST(utimensat(AT_FDCWD, "hard", t, 0) == 0 && utimensat(AT_FDCWD, "empty", e, 0) == 0);
  MUST(chdir("run/app") == 0 && chdir("../..") == 0);
  serve(verify);
}
