// SPDX-License-Identifier: Apache-2.0
//
// A file on a tmpfs of the container: the new container's is empty.
// With SUB the file is in a directory on it. Beside it is one that is not open.
// usage: tmpfs DIR [SUB]
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include "kerneltest.h"

static int f;

static void verify(void) {
  char b[8] = {0};
  CHECK(pread(f, b, 8, 0) == 5 && !memcmp(b, "tmpfs", 5), "%s", b);
  CHECK(lseek(f, 0, SEEK_CUR) == 5);
  struct stat a, n;
  CHECK(fstat(f, &a) == 0 && a.st_nlink == 1 && (a.st_mode & 07777) == 0604 && a.st_uid == 12);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", f);
  char name[512];
  ssize_t len = readlink(path, name, sizeof name - 1);
  CHECK(len > 0);
  name[len] = 0;
  CHECK(stat(name, &n) == 0 && n.st_ino == a.st_ino && n.st_dev == a.st_dev, "%s", name);
}

int main(int argc, char **argv) {
  MUST(argc == 2 || argc == 3);
  char path[512];
  snprintf(path, sizeof path, "%s/closed.pid", argv[1]);
  MUST((f = open(path, O_RDWR | O_CREAT, 0600)) >= 0 && close(f) == 0);
  snprintf(path, sizeof path, "%s/%s", argv[1], argc == 3 ? argv[2] : "");
  MUST(argc == 2 || mkdir(path, 0755) == 0);
  snprintf(path, sizeof path, "%s/%s/file", argv[1], argc == 3 ? argv[2] : "");
  MUST((f = open(path, O_RDWR | O_CREAT, 0600)) >= 0 && write(f, "tmpfs", 5) == 5);
  MUST(fchmod(f, 0604) == 0 && fchown(f, 12, 0) == 0);
  serve(verify);
}
