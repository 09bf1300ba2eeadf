// SPDX-License-Identifier: Apache-2.0
//
// A file that is mapped, shared and writable, and closed.
// usage: mapped FILE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "kerneltest.h"

static char *m;

static const char *name;

// The mapping has its content, and is the file that has the name.
static void verify(void) {
  CHECK(m[0] == 'x' && m[4095] == 'y');
  char c = 0;
  int f = open(name, O_RDONLY);
  m[17]++;
  CHECK(f >= 0 && pread(f, &c, 1, 17) == 1 && c == m[17], "%s is another file", name);
  close(f);
}

int main(int argc, char **argv) {
  MUST(argc == 2);
  name = argv[1];
  int f = open(argv[1], O_RDWR | O_CREAT, 0644);
  MUST(f >= 0 && ftruncate(f, 4096) == 0);
  m = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
  MUST(m != MAP_FAILED);
  close(f);
  m[0] = 'x';
  m[4095] = 'y';
  serve(verify);
}
