// SPDX-License-Identifier: Apache-2.0
//
// A child that is more, or less, than a fork makes: see the first argument.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include "kerneltest.h"

static char stack[65536] __attribute__((aligned(16)));
static int wait_for_ever(void *p) {
  for (;;) pause();
}

static pid_t child;
static int flags;

static void verify(void) {
  enum { KCMP_VM = 1, KCMP_FILES = 2, KCMP_SIGHAND = 4 };
  if (flags & CLONE_FILES) CHECK(syscall(SYS_kcmp, getpid(), child, KCMP_FILES, 0, 0) == 0, "they have two tables");
  if (flags & CLONE_VM) CHECK(syscall(SYS_kcmp, getpid(), child, KCMP_VM, 0, 0) == 0, "they have two memories");
  if (flags & CLONE_SIGHAND) CHECK(syscall(SYS_kcmp, getpid(), child, KCMP_SIGHAND, 0, 0) == 0, "they have handlers of their own");
}

int main(int argc, char **argv) {
  static const struct { const char *name; int flags; } kinds[] = {
    {"memory", CLONE_VM}, {"descriptors", CLONE_FILES}, {"handlers", CLONE_VM | CLONE_SIGHAND}, {"mounts", CLONE_NEWNS}, {"hostname", CLONE_NEWUTS},
  };
  for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
    if (argc > 1 && strcmp(argv[1], kinds[i].name) == 0)
      MUST((child = clone(wait_for_ever, stack + sizeof stack, (flags = kinds[i].flags) | SIGCHLD, NULL)) > 0);
  usleep(20000);
  serve(verify);
}
