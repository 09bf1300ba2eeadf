// SPDX-License-Identifier: Apache-2.0
//
// mlockall(2) for what will be mapped; argv[1] says how: "future" or "onfault".
// Nothing, with "none".
#define _GNU_SOURCE
#include <sys/mman.h>

#include "kerneltest.h"

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

static const char *how;

// locked tells how much of a fresh mapping of 64 pages is locked: -1 if none is.
static long locked(void) {
  char *p = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MUST(p != MAP_FAILED);
  char line[512];
  long kb = -1, found = -1;
  int in = 0;
  FILE *f = fopen("/proc/self/smaps", "r");
  while (f && fgets(line, sizeof line, f)) {
    unsigned long a, b;
    if (sscanf(line, "%lx-%lx ", &a, &b) == 2) in = a <= (unsigned long)p && (unsigned long)p < b;
    if (in) sscanf(line, "Rss: %ld", &kb);
    if (in && strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " lo ")) found = kb;
  }
  if (f) fclose(f);
  munmap(p, 64 * 4096);
  return found;
}

static void verify(void) {
  long kb = locked();
  if (!strcmp(how, "future")) CHECK(kb >= 256, "%ld KiB of a new mapping are there and locked", kb);
  if (!strcmp(how, "onfault")) CHECK(kb >= 0 && kb < 256, "%ld KiB of a new mapping are there and locked", kb);
  if (!strcmp(how, "none")) CHECK(kb < 0, "a new mapping is locked");
}

int main(int argc, char **argv) {
  how = argv[1];
  if (strcmp(how, "none")) MUST(mlockall(MCL_FUTURE | (strcmp(how, "onfault") ? 0 : MCL_ONFAULT)) == 0);
  serve(verify);
}
