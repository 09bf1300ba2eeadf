// SPDX-License-Identifier: Apache-2.0
//
// Registers in a spinning thread, and threads in system calls that a stop
// interrupts: none may see EINTR.
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <fenv.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>

#include "kerneltest.h"

static volatile int stop, spinning;
static uint8_t in[16][32] __attribute__((aligned(32))), out[16][32] __attribute__((aligned(32)));
static uint64_t general[8];
static uint32_t mxcsr;
static uint16_t fpcw;
static long double x87;
static volatile const char *failed;

// spin holds all vector registers, most general ones and the x87 stack while
// it loops in user mode.
__attribute__((target("avx"))) static void *spin(void *arg) {
  for (int i = 0; i < 16; i++) for (int j = 0; j < 32; j++) in[i][j] = 17 * i + j + 1;
  uint32_t csr = 0x1f80 | 0x6000;  // round towards zero
  uint16_t cw = 0x0f7f;
  static uint64_t gs[4] = {0, 0x1122334455667788};
  syscall(SYS_arch_prctl, ARCH_SET_GS, gs);
  for (;;) {
    spinning = 1;
    asm volatile(
        "ldmxcsr %[csr]\n fldcw %[cw]\n fld1\n"
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqa \\n*32(%[in]), %%ymm\\n\n .endr\n"
        "mov $0x1111111111111111, %%r8\n mov $0x2222222222222222, %%r9\n mov $0x3333333333333333, %%r10\n"
        "mov $0x4444444444444444, %%r11\n mov $0x5555555555555555, %%r12\n mov $0x6666666666666666, %%r13\n"
        "1: pause\n cmpl $0, %[stop]\n je 1b\n"
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqa %%ymm\\n, \\n*32(%[out])\n .endr\n"
        "mov %%r8, %[g]\n mov %%r9, 8+%[g]\n mov %%r10, 16+%[g]\n mov %%r11, 24+%[g]\n mov %%r12, 32+%[g]\n mov %%r13, 40+%[g]\n"
        "mov %%gs:8, %%r8\n mov %%r8, 48+%[g]\n"
        "stmxcsr %[csr2]\n fstcw %[cw2]\n fstpt %[x]\n vzeroupper\n"
        : [g] "=m"(general), [csr2] "=m"(mxcsr), [cw2] "=m"(fpcw), [x] "=m"(x87)
        : [csr] "m"(csr), [cw] "m"(cw), [in] "r"(in), [out] "r"(out), [stop] "m"(stop)
        : "r8", "r9", "r10", "r11", "r12", "r13", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
          "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    spinning = 0;
    while (stop) sched_yield();
  }
}

static void registers(void) {
  long double one;
  asm("fld1\n fstpt %0" : "=m"(one));
  stop = 1;
  while (spinning) sched_yield();
  CHECK(memcmp(in, out, sizeof in) == 0, "vector registers");
  for (int i = 0; i < 6; i++) CHECK(general[i] == (i + 1) * 0x1111111111111111ul, "general register %d: %lx", i, general[i]);
  CHECK(general[6] == 0x1122334455667788, "gs base: %lx", general[6]);
  CHECK((mxcsr & 0xffc0) == (0x1f80 | 0x6000), "mxcsr %x", mxcsr);
  CHECK(fpcw == 0x0f7f && memcmp(&x87, &one, 10) == 0, "x87 control %x", fpcw);
  memset(out, 0, sizeof out);
  memset(general, 0, sizeof general);
  stop = 0;
  while (!spinning) sched_yield();
}

// The sleepers: each makes one system call again and again.
static const struct timespec ms = {.tv_nsec = 40000000};
static int never;

static int do_nanosleep(void) { return nanosleep(&ms, NULL); }
static int do_absolute(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_nsec += 40000000;
  if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
  int e = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
  errno = e;
  return -(e != 0);
}
static int do_poll(void) { return poll(NULL, 0, 40); }
static int do_ppoll(void) { return ppoll(NULL, 0, &ms, NULL); }
static int do_select(void) { return select(0, NULL, NULL, NULL, &(struct timeval){.tv_usec = 40000}); }
static int timed_out(long r) { return r < 0 && errno == ETIMEDOUT ? 0 : -1; }
static int do_futex(void) { return timed_out(syscall(SYS_futex, &never, FUTEX_WAIT, 0, &ms, NULL, 0)); }
static int do_bitset(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_nsec += 300000000;
  if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
  return timed_out(syscall(SYS_futex, &never, FUTEX_WAIT_BITSET, 0, &t, NULL, ~0));
}
static int do_sigwait(void) {
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGUSR1);
  return sigtimedwait(&s, NULL, &ms) < 0 && errno == EAGAIN ? 0 : -1;
}
// An hour, so that it is interrupted for certain and never ends.
static int do_long(void) { return nanosleep(&(struct timespec){.tv_sec = 3600}, NULL); }
static int do_long_poll(void) { return poll(NULL, 0, 3600000); }
static int do_forever(void) { return poll(NULL, 0, -1); }
static int do_pause(void) { return pause(); }

static struct sleeper {
  const char *name;
  int (*call)(void);
  int endless;
  volatile long n;
} sleepers[] = {
    {"nanosleep", do_nanosleep}, {"clock_nanosleep", do_absolute}, {"poll", do_poll}, {"ppoll", do_ppoll},
    {"select", do_select}, {"futex", do_futex}, {"futex bitset", do_bitset}, {"sigtimedwait", do_sigwait},
    {"long nanosleep", do_long, 1}, {"long poll", do_long_poll, 1}, {"endless poll", do_forever, 1}, {"pause", do_pause, 1},
};
#define SLEEPERS (sizeof sleepers / sizeof *sleepers)

static void *sleeper(void *arg) {
  struct sleeper *s = arg;
  for (;; s->n++)
    if (s->call() != 0 || s->endless) {
      dprintf(2, "%s returned, errno %d\n", s->name, errno);
      failed = s->name;
    }
}

static void verify(void) {
  long before[SLEEPERS];
  for (size_t i = 0; i < SLEEPERS; i++) before[i] = sleepers[i].n;
  registers();
  for (int tries = 0; tries < 100; tries++) {
    size_t moved = 0;
    for (size_t i = 0; i < SLEEPERS; i++) moved += sleepers[i].endless || sleepers[i].n > before[i];
    if (moved == SLEEPERS) break;
    usleep(50000);
  }
  for (size_t i = 0; i < SLEEPERS; i++) CHECK(sleepers[i].endless || sleepers[i].n > before[i], "%s does not wake up", sleepers[i].name);
  CHECK(!failed, "%s was interrupted", failed);
}

int main(void) {
  pthread_t t;
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &s, NULL);
  pthread_create(&t, NULL, spin, NULL);
  while (!spinning) sched_yield();
  for (size_t i = 0; i < SLEEPERS; i++) pthread_create(&t, NULL, sleeper, &sleepers[i]);
  usleep(20000);
  serve(verify);
}
