// SPDX-License-Identifier: Apache-2.0
//
// Dispositions, masks, alternate stacks, queues, a handler that is under way
// and a thread in sigsuspend.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "kerneltest.h"

#define QUEUED (SIGRTMIN + 3)
#define DIRECTED (SIGRTMIN + 4)

static char *stack;
static volatile int inside, outside, release, bad_stack, usr2, suspended, resumed;
static pthread_t busy, waiting;

static void futex_wait(volatile int *w, int v) { syscall(SYS_futex, w, FUTEX_WAIT_PRIVATE, v, NULL, NULL, 0); }
static void futex_wake(volatile int *w) { syscall(SYS_futex, w, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0); }
static void await(volatile int *w, int v) {
  for (int now; (now = __atomic_load_n(w, __ATOMIC_SEQ_CST)) != v;) futex_wait(w, now);
}
static void set(volatile int *w, int v) {
  __atomic_store_n(w, v, __ATOMIC_SEQ_CST);
  futex_wake(w);
}

// on_stack stays in the handler, on the alternate stack, until released.
static void on_stack(int sig, siginfo_t *si, void *uc) {
  volatile char here[2000];
  for (size_t i = 0; i < sizeof here; i++) here[i] = (char)i;
  if ((char *)&here < stack || (char *)&here > stack + 65536) bad_stack = 1;
  if (si->si_value.sival_int != 4711 || sig != SIGUSR1) bad_stack = 2;
  set(&inside, inside + 1);
  await(&release, inside);
  for (size_t i = 0; i < sizeof here; i++) if (here[i] != (char)i) bad_stack = 3;
}
static void on_usr2(int sig) { usr2++; }
static void on_alarm(int sig) {}

static void mask_is(const char *who, int usr1, int usr2_, int queued) {
  sigset_t now;
  pthread_sigmask(SIG_BLOCK, NULL, &now);
  CHECK(sigismember(&now, SIGUSR1) == usr1 && sigismember(&now, SIGUSR2) == usr2_ && sigismember(&now, QUEUED) == queued, "mask of %s", who);
}

static void *run_busy(void *arg) {
  stack_t ss = {.ss_sp = stack, .ss_size = 65536};
  MUST(sigaltstack(&ss, NULL) == 0);
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGUSR1);
  pthread_sigmask(SIG_UNBLOCK, &s, NULL);
  for (int n = 0;; n++) {
    await(&outside, n);
    await(&inside, n + 1);  // the handler runs in here
    await(&release, n + 1);
    stack_t now;
    sigaltstack(NULL, &now);
    if (now.ss_sp != stack || now.ss_size != 65536 || now.ss_flags != 0) bad_stack = 4;
    set(&outside, n + 1);
  }
}

static void *run_waiting(void *arg) {
  sigset_t all_but;
  sigfillset(&all_but);
  sigdelset(&all_but, SIGUSR2);
  for (;;) {
    int before = usr2;
    set(&suspended, suspended + 1);
    sigsuspend(&all_but);
    if (usr2 == before) fail("sigsuspend returned without a signal");
    mask_is("the suspended thread", 1, 1, 1);
    set(&resumed, resumed + 1);
  }
}

static void queue(void) {
  for (int i = 0; i < 20; i++) MUST(sigqueue(1, QUEUED, (union sigval){.sival_int = 1000 + i}) == 0);
  for (int i = 0; i < 3; i++) MUST(pthread_sigqueue(pthread_self(), DIRECTED, (union sigval){.sival_int = 2000 + i}) == 0);
  MUST(raise(SIGHUP) == 0 && kill(1, SIGINT) == 0);
  MUST(raise(SIGWINCH) == 0 && kill(1, SIGURG) == 0 && kill(1, SIGCHLD) == 0);
}

static void begin(void) {
  int n = inside;
  MUST(pthread_sigqueue(busy, SIGUSR1, (union sigval){.sival_int = 4711}) == 0);
  await(&inside, n + 1);
}

static void dispositions(void) {
  struct sigaction a;
  sigaction(SIGUSR1, NULL, &a);
  CHECK(a.sa_sigaction == on_stack && (a.sa_flags & (SA_ONSTACK | SA_SIGINFO | SA_RESTART | SA_NODEFER)) == (SA_ONSTACK | SA_SIGINFO | SA_RESTART));
  CHECK(sigismember(&a.sa_mask, SIGWINCH) && !sigismember(&a.sa_mask, SIGTERM), "mask of the handler");
  sigaction(SIGALRM, NULL, &a);
  CHECK(a.sa_handler == on_alarm && (a.sa_flags & (SA_RESETHAND | SA_NODEFER)) == (int)(SA_RESETHAND | SA_NODEFER));
  sigaction(SIGTRAP, NULL, &a);
  CHECK(a.sa_handler == SIG_IGN, "SIGTRAP is no longer ignored");
  sigaction(SIGCHLD, NULL, &a);
  CHECK(a.sa_handler == SIG_DFL && (a.sa_flags & SA_NOCLDWAIT), "flags of a default action");
  sigaction(SIGTERM, NULL, &a);
  CHECK(a.sa_handler == SIG_DFL && !a.sa_flags);
}

static int take(int sig, siginfo_t *si) {
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, sig);
  // Not glibc's: it shows SI_TKILL as SI_USER.
  return syscall(SYS_rt_sigtimedwait, &s, si, &(struct timespec){0}, 8);
}

static void pending(void) {
  siginfo_t si;
  for (int i = 0; i < 20; i++) {
    CHECK(take(QUEUED, &si) == QUEUED && si.si_value.sival_int == 1000 + i && si.si_code == SI_QUEUE && si.si_pid == 1, "queued signal %d: value %d code %d pid %d", i, si.si_value.sival_int, si.si_code, si.si_pid);
  }
  CHECK(take(QUEUED, &si) < 0 && errno == EAGAIN, "more than was queued");
  for (int i = 0; i < 3; i++) CHECK(take(DIRECTED, &si) == DIRECTED && si.si_value.sival_int == 2000 + i, "directed signal %d", i);
  CHECK(take(SIGHUP, &si) == SIGHUP && si.si_code == SI_TKILL, "SIGHUP code %d", si.si_code);
  CHECK(take(SIGINT, &si) == SIGINT && si.si_code == SI_USER && si.si_pid == 1, "SIGINT code %d", si.si_code);
  CHECK(take(SIGWINCH, &si) == SIGWINCH && take(SIGURG, &si) == SIGURG && take(SIGCHLD, &si) == SIGCHLD, "signals that are ignored by default");
}

static void verify(void) {
  dispositions();
  mask_is("main", 1, 1, 1);
  pending();
  // The handler goes on where it was and returns.
  int n = inside;
  set(&release, n);
  await(&outside, n);
  CHECK(!bad_stack, "handler on the alternate stack: %d", bad_stack);
  int r = resumed, s = suspended;
  pthread_kill(waiting, SIGUSR2);
  await(&resumed, r + 1);
  await(&suspended, s + 1);
  queue();
  begin();
}

int main(void) {
  stack = malloc(65536);
  struct sigaction a = {.sa_sigaction = on_stack, .sa_flags = SA_ONSTACK | SA_SIGINFO | SA_RESTART};
  sigaddset(&a.sa_mask, SIGWINCH);
  sigaction(SIGUSR1, &a, NULL);
  sigaction(SIGUSR2, &(struct sigaction){.sa_handler = on_usr2}, NULL);
  sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm, .sa_flags = SA_RESETHAND | SA_NODEFER}, NULL);
  sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT}, NULL);
  signal(SIGTRAP, SIG_IGN);
  sigset_t s;
  sigemptyset(&s);
  int block[] = {SIGWINCH, SIGURG, SIGCHLD, SIGUSR1, SIGUSR2, SIGHUP, SIGINT, QUEUED, DIRECTED};
  for (size_t i = 0; i < sizeof block / sizeof *block; i++) sigaddset(&s, block[i]);
  pthread_sigmask(SIG_BLOCK, &s, NULL);
  pthread_create(&busy, NULL, run_busy, NULL);
  pthread_create(&waiting, NULL, run_waiting, NULL);
  await(&suspended, 1);
  queue();
  begin();
  serve(verify);
}
