// SPDX-License-Identifier: Apache-2.0
//
// Threads with different credentials. Each looks at its own again.
// argv[1]: "root" starts with everything and gives away parts of it, "user"
// stays as it was started.
#define _GNU_SOURCE
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "kerneltest.h"

#define BIT(n) (1ull << (n))
#define THREADS 4

struct view {
  uint32_t uid[4], gid[4], groups[32];
  int n, securebits, nnp, dumpable, keep;
  struct __user_cap_data_struct caps[2];
  uint64_t bounding, ambient;
  struct rlimit limits[16];
};

static void look(struct view *v) {
  memset(v, 0, sizeof *v);
  syscall(SYS_getresuid, &v->uid[0], &v->uid[1], &v->uid[2]);
  syscall(SYS_getresgid, &v->gid[0], &v->gid[1], &v->gid[2]);
  v->uid[3] = syscall(SYS_setfsuid, -1);
  v->gid[3] = syscall(SYS_setfsgid, -1);
  v->n = syscall(SYS_getgroups, 32, v->groups);
  struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
  syscall(SYS_capget, &h, v->caps);
  v->securebits = prctl(PR_GET_SECUREBITS);
  v->keep = prctl(PR_GET_KEEPCAPS);
  v->nnp = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  v->dumpable = prctl(PR_GET_DUMPABLE);
  for (int i = 0; i < 64; i++) {
    if (prctl(PR_CAPBSET_READ, i) == 1) v->bounding |= BIT(i);
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1) v->ambient |= BIT(i);
  }
  for (int i = 0; i < 16; i++) getrlimit(i, &v->limits[i]);
}

static void capset_(uint64_t e, uint64_t p, uint64_t i) {
  struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct d[2] = {{e, p, i}, {e >> 32, p >> 32, i >> 32}};
  MUST(syscall(SYS_capset, &h, d) == 0);
}

static const uint64_t some = BIT(CAP_CHOWN) | BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_KILL) | BIT(CAP_SETPCAP);

// change gives thread n its own credentials, by system calls that libc would
// make in every thread.
static void change(int n) {
  uint32_t groups[] = {7, 11, 13, 17};
  switch (n) {
    case 0:  // an ordinary user without anything
      MUST(syscall(SYS_setgroups, 3, groups) == 0);
      MUST(syscall(SYS_setresgid, 100, 100, 100) == 0 && syscall(SYS_setresuid, 1000, 1000, 1000) == 0);
      break;
    case 1:  // a user with capabilities, ambient ones among them
      MUST(prctl(PR_SET_KEEPCAPS, 1) == 0);
      for (int i = 0; i < 41; i++) if (!(some & BIT(i))) prctl(PR_CAPBSET_DROP, i);
      MUST(syscall(SYS_setgroups, 0, NULL) == 0);
      MUST(syscall(SYS_setresgid, 100, 101, 102) == 0 && syscall(SYS_setresuid, 1000, 1001, 1002) == 0);
      capset_(some, some, BIT(CAP_KILL) | BIT(CAP_CHOWN));
      MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0);
      capset_(BIT(CAP_KILL), BIT(CAP_KILL) | BIT(CAP_CHOWN), BIT(CAP_KILL));
      syscall(SYS_setfsuid, 1002);
      syscall(SYS_setfsgid, 100);
      break;
    case 2:  // root, without root's privileges
      MUST(syscall(SYS_setgroups, 4, groups) == 0);
      MUST(prctl(PR_CAPBSET_DROP, CAP_CHOWN) == 0);  // stays permitted
      MUST(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE) == 0);
      MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
      capset_(0, BIT(CAP_CHOWN) | BIT(CAP_SETUID), 0);
      break;
    default:  // what the frame has beyond the spec must not stay
      MUST(syscall(SYS_setresuid, 0, 1000, 0) == 0);
  }
}

static struct view was[THREADS + 1];
static pthread_barrier_t turn, done;
static int user;

static void compare(int n) {
  struct view now, *w = &was[n];
  look(&now);
  CHECK(!memcmp(now.uid, w->uid, sizeof now.uid), "thread %d: uid %u %u %u %u", n, now.uid[0], now.uid[1], now.uid[2], now.uid[3]);
  CHECK(!memcmp(now.gid, w->gid, sizeof now.gid), "thread %d: gid %u %u %u %u", n, now.gid[0], now.gid[1], now.gid[2], now.gid[3]);
  CHECK(now.n == w->n && !memcmp(now.groups, w->groups, sizeof now.groups), "thread %d: %d groups", n, now.n);
  CHECK(!memcmp(now.caps, w->caps, sizeof now.caps), "thread %d: capabilities %x %x %x", n, now.caps[0].effective, now.caps[0].permitted, now.caps[0].inheritable);
  CHECK(now.bounding == w->bounding && now.ambient == w->ambient, "thread %d: bounding %lx ambient %lx", n, now.bounding, now.ambient);
  CHECK(now.securebits == w->securebits && now.keep == w->keep, "thread %d: secure bits %x, had %x", n, now.securebits, w->securebits);
  CHECK(now.nnp == w->nnp && now.dumpable == w->dumpable, "thread %d: no_new_privs %d, dumpable %d", n, now.nnp, now.dumpable);
  for (int i = 0; i < 16; i++)
    CHECK(now.limits[i].rlim_cur == w->limits[i].rlim_cur && now.limits[i].rlim_max == w->limits[i].rlim_max, "limit %d: %lx %lx", i, now.limits[i].rlim_cur, now.limits[i].rlim_max);
}

static void *run(void *arg) {
  int n = (int)(intptr_t)arg;
  if (!user) change(n);
  pthread_barrier_wait(&done);
  pthread_barrier_wait(&turn);
  look(&was[n]);  // when the process's own state is final
  for (;;) {
    pthread_barrier_wait(&done);
    pthread_barrier_wait(&turn);
    compare(n);
  }
}

static void verify(void) {
  pthread_barrier_wait(&turn);
  compare(THREADS);
  pthread_barrier_wait(&done);
}

int main(int argc, char **argv) {
  pthread_t t;
  user = strcmp(argv[1], "user") == 0;
  pthread_barrier_init(&turn, NULL, THREADS + 1);
  pthread_barrier_init(&done, NULL, THREADS + 1);
  for (int i = 0; i < THREADS; i++) MUST(pthread_create(&t, NULL, run, (void *)(intptr_t)i) == 0);
  pthread_barrier_wait(&done);
  struct rlimit few = {5, 9}, core = {0, 0}, as = {1 << 30, 1 << 30}, locked = {4096, 8192}, cpu = {1000, 2000};
  MUST(setrlimit(RLIMIT_NOFILE, &few) == 0 && setrlimit(RLIMIT_CORE, &core) == 0 && setrlimit(RLIMIT_AS, &as) == 0);
  MUST(setrlimit(RLIMIT_MEMLOCK, &locked) == 0 && setrlimit(RLIMIT_CPU, &cpu) == 0);
  MUST(prctl(PR_SET_DUMPABLE, 0) == 0);
  if (!user) MUST(setrlimit(RLIMIT_NPROC, &few) == 0);
  pthread_barrier_wait(&turn);
  look(&was[THREADS]);
  pthread_barrier_wait(&done);
  serve(verify);
}
