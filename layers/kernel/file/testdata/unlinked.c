// SPDX-License-Identifier: Apache-2.0
//
// Files without a name: content, holes, two descriptions of one file, memfds
// with seals, and a name that only looks deleted.
// usage: unlinked DIR
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "kerneltest.h"

static int a, b, mem, sealed, literal;
enum { FAR = 40 << 20, BIG = 3 << 20 };

static void verify(void) {
  char buf[64] = {0};
  struct stat st;
  CHECK(fstat(a, &st) == 0 && st.st_nlink == 0 && st.st_size == FAR + 4, "size %lld links %d", (long long)st.st_size, (int)st.st_nlink);
  CHECK((st.st_mode & 07777) == 0640);
  CHECK(st.st_blocks * 512LL < 8 << 20, "holes were filled: %lld", (long long)st.st_blocks);
  CHECK(pread(a, buf, 5, 0) == 5 && !memcmp(buf, "start", 5), "%s", buf);
  CHECK(pread(a, buf, 4, FAR) == 4 && !memcmp(buf, "far.", 4));
  static char big[BIG];
  CHECK(pread(a, big, BIG, 4096) == BIG);
  for (int i = 0; i < BIG; i++)
    if (big[i] != (char)(i * 7 + i / 4096)) {
      fail("byte %d", i);
      break;
    }
  CHECK(lseek(a, 0, SEEK_CUR) == 5);
  CHECK(lseek(b, 0, SEEK_CUR) == 17);
  CHECK((fcntl(b, F_GETFL) & O_ACCMODE) == O_RDONLY);
  // Both descriptions are of one file.
  CHECK(pwrite(a, "shared", 6, 20 << 20) == 6);
  CHECK(pread(b, buf, 6, 20 << 20) == 6 && !memcmp(buf, "shared", 6));
  CHECK(pread(mem, buf, 6, 0) == 6 && !memcmp(buf, "memory", 6));
  CHECK(fcntl(mem, F_GET_SEALS) == 0, "%x", fcntl(mem, F_GET_SEALS));
  CHECK(fcntl(sealed, F_GET_SEALS) == (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), "%x", fcntl(sealed, F_GET_SEALS));
  CHECK(write(sealed, "x", 1) < 0 && errno == EPERM);
  CHECK(pread(sealed, buf, 6, 0) == 6 && !memcmp(buf, "sealed", 6));
  CHECK(pread(literal, buf, 7, 0) == 7 && !memcmp(buf, "literal", 7));
  CHECK(fstat(literal, &st) == 0 && st.st_nlink == 1);
}

int main(int argc, char **argv) {
  MUST(argc == 2 && chdir(argv[1]) == 0);
  MUST((a = open("gone", O_RDWR | O_CREAT | O_EXCL, 0600)) >= 0);
  MUST(fchmod(a, 0640) == 0);
  MUST((b = open("gone", O_RDONLY)) >= 0);
  MUST(unlink("gone") == 0);
  static char big[BIG];
  for (int i = 0; i < BIG; i++) big[i] = i * 7 + i / 4096;
  MUST(write(a, "start", 5) == 5);
  MUST(pwrite(a, big, BIG, 4096) == BIG);
  MUST(pwrite(a, "far.", 4, FAR) == 4);
  MUST(lseek(b, 17, SEEK_SET) == 17);
  MUST((mem = memfd_create("some name", MFD_ALLOW_SEALING)) >= 0);
  MUST(write(mem, "memory", 6) == 6);
  MUST((sealed = memfd_create("sealed", MFD_ALLOW_SEALING)) >= 0);
  MUST(write(sealed, "sealed", 6) == 6);
  MUST(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
  MUST((literal = open("x (deleted)", O_RDWR | O_CREAT, 0600)) >= 0);
  MUST(write(literal, "literal", 7) == 7);
  serve(verify);
}
