// SPDX-License-Identifier: Apache-2.0
//
// A program that restricts itself: all threads by two filters, one of them by a
// third. The first filter kills for
// every call that the program does not make.
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "kerneltest.h"

#define NR BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define RET(k) BPF_STMT(BPF_RET | BPF_K, k)

static void load(struct sock_filter *code, int n, int flags) {
  struct sock_fprog p = {n, code};
  MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p) == 0);
}

static void deny(int nr, int error, int flags) {
  struct sock_filter code[] = {NR, BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), RET(SECCOMP_RET_ERRNO | error), RET(SECCOMP_RET_ALLOW)};
  load(code, 4, flags);
}

static void kill_for_others(void) {
  static const int allowed[] = {SYS_read, SYS_write, SYS_futex, SYS_seccomp, SYS_prctl, SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_getppid, SYS_gettid, SYS_restart_syscall};
  enum { N = sizeof allowed / sizeof *allowed };
  struct sock_filter code[N + 3] = {NR};
  for (int i = 0; i < N; i++) code[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], N - i, 0);
  code[N + 1] = (struct sock_filter)RET(SECCOMP_RET_KILL_PROCESS);
  code[N + 2] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
  load(code, N + 3, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG);
}

static int word, up, started, done;

static void note(int *n) {
  __atomic_add_fetch(n, 1, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, n, FUTEX_WAKE_PRIVATE, 100, 0, 0, 0);
}

static void await(int *n, int want) {
  for (int v; (v = __atomic_load_n(n, __ATOMIC_SEQ_CST)) < want;) syscall(SYS_futex, n, FUTEX_WAIT_PRIVATE, v, 0, 0, 0);
}

static void *thread(void *arg) {
  long own = (long)arg;
  note(&up);  // what libc does for a thread, it has done
  await(&started, 100);  // all filters of the process are loaded
  if (own) deny(SYS_gettid, 77, 0);
  note(&started);
  for (int turn = 1;; turn++) {
    await(&word, turn);
    errno = 0;
    long tid = syscall(SYS_gettid);
    if (own) CHECK(tid == -1 && errno == 77);
    else CHECK(tid > 0);
    errno = 0;
    CHECK(syscall(SYS_getppid) == -1 && errno == 66);
    note(&done);
  }
}

static void verify(void) {
  static int turn;
  turn++;
  CHECK(prctl(PR_GET_SECCOMP) == 2);
  errno = 0;
  CHECK(syscall(SYS_getppid) == -1 && errno == 66);
  note(&word);
  await(&done, 2 * turn);
}

int main(void) {
  pthread_t t;
  MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  for (long own = 0; own < 2; own++) MUST(pthread_create(&t, NULL, thread, (void *)own) == 0);
  await(&up, 2);
  kill_for_others();
  deny(SYS_getppid, 66, SECCOMP_FILTER_FLAG_TSYNC);
  started = 99;
  note(&started);
  await(&started, 102);
  serve(verify);
}
