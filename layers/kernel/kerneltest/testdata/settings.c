// SPDX-License-Identifier: Apache-2.0
//
// Settings that few programs change: of two threads, each its own, and of the
// process. With "compat" it has a personality that is refused.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "kerneltest.h"

struct settings {
  unsigned long cpus[16], nodes[16];
  int ioprio, mce, policy, ssb, ib, l1d, tsc, flusher;
};

static struct settings was[2];
static int mdwe, merge, barriers;
static volatile int turn, done;

static void look(struct settings *s) {
  memset(s, 0, sizeof *s);
  CHECK(syscall(SYS_sched_getaffinity, 0, sizeof s->cpus, s->cpus) > 0);
  s->ioprio = syscall(SYS_ioprio_get, 1, 0);
  s->mce = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
  syscall(SYS_get_mempolicy, &s->policy, s->nodes, 1024, NULL, 0);
  s->ssb = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
  s->ib = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, 0, 0, 0);
  CHECK(prctl(PR_GET_TSC, &s->tsc) == 0);
  s->flusher = prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0);
  s->l1d = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_L1D_FLUSH, 0, 0, 0);
}

// change gives a thread settings; what the kernel does not have stays as it is.
static void change(int n) {
  unsigned long cpu = 1ul << n, node = 1;
  syscall(SYS_sched_setaffinity, 0, sizeof cpu, &cpu);
  MUST(syscall(SYS_ioprio_set, 1, 0, (2 + n) << 13 | n) == 0);
  MUST(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, n, 0, 0) == 0);
  syscall(SYS_set_mempolicy, 1 + n, &node, 64);
  prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0);
  prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, n ? PR_SPEC_FORCE_DISABLE : PR_SPEC_DISABLE, 0, 0);
  if (n) {
    MUST(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0);
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); // CAP_SYS_RESOURCE
  }
  look(&was[n]);
}

static void same(int n) {
  struct settings is;
  look(&is);
#define SAME(field) CHECK(!memcmp(&was[n].field, &is.field, sizeof is.field), "thread %d: " #field, n)
  SAME(cpus);
  SAME(ioprio);
  SAME(mce);
  SAME(policy);
  SAME(nodes);
  SAME(ssb);
  SAME(ib);
  SAME(l1d);
  SAME(tsc);
  SAME(flusher);
}

static void *other(void *arg) {
  change(1);
  for (int mine = 1; done = mine, 1; mine++) {
    while (turn < mine)
      usleep(1000);
    same(1);
  }
  return NULL;
}

static void verify(void) {
  same(0);
  int t = ++turn;
  while (done <= t)
    usleep(1000);
  // Who has not registered is told so.
  CHECK(syscall(SYS_membarrier, 8, 0, 0) == 0, "membarrier private expedited");
  CHECK(syscall(SYS_membarrier, 32, 0, 0) == 0, "membarrier sync core");
  CHECK(barriers == syscall(SYS_membarrier, 512, 0, 0), "membarrier registrations");
  CHECK(merge == prctl(68, 0, 0, 0, 0), "memory merge");
  CHECK(mdwe == prctl(66, 0, 0, 0, 0), "MDWE");
}

int main(int argc, char **argv) {
  pthread_t id;
  if (argc > 1 && !strcmp(argv[1], "compat"))
    MUST(personality(0x0200000) >= 0);
  static char allow;
  if (argc > 1 && !strcmp(argv[1], "dispatch"))
    MUST(prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &allow) == 0);
  MUST(syscall(SYS_membarrier, 16, 0, 0) == 0);
  MUST(syscall(SYS_membarrier, 64, 0, 0) == 0);
  barriers = syscall(SYS_membarrier, 512, 0, 0);
  prctl(67, 1, 0, 0, 0);
  merge = prctl(68, 0, 0, 0, 0);
  change(0);
  MUST(pthread_create(&id, NULL, other, NULL) == 0);
  while (!done)
    usleep(1000);
  prctl(65, 1, 0, 0, 0);
  mdwe = prctl(66, 0, 0, 0, 0);
  serve(verify);
}
