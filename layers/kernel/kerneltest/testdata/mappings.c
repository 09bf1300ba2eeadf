// SPDX-License-Identifier: Apache-2.0
//
// As many mappings as vm.max_map_count allows a process, nearly: 60,000, of
// which every second one holds something.
#define _GNU_SOURCE
#include <sys/mman.h>

#include "kerneltest.h"

enum { PAGE = 4096, MAPPINGS = 60000 };
static char *base;

static void verify(void) {
  for (int i = 0; i < MAPPINGS; i += 2) CHECK(*(int *)(base + (long)i * PAGE) == i, "mapping %d", i);
  int n = 0, c;
  FILE *f = fopen("/proc/self/maps", "r");
  while (f && (c = getc(f)) != EOF) n += c == '\n';
  if (f) fclose(f);
  CHECK(n > MAPPINGS, "%d mappings", n);
}

int main(void) {
  base = mmap(NULL, (long)MAPPINGS * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MUST(base != MAP_FAILED);
  for (int i = 0; i < MAPPINGS; i += 2) *(int *)(base + (long)i * PAGE) = i;
  for (int i = 0; i < MAPPINGS; i += 2) MUST(mprotect(base + (long)i * PAGE, PAGE, PROT_READ) == 0);
  serve(verify);
}
