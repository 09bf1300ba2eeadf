// SPDX-License-Identifier: Apache-2.0
//
// eventfds and a signalfd.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include "kerneltest.h"

static int plain, semaphore, full, blocking, sig;

static void verify(void) {
  uint64_t n;
  static int round;
  if (round++ == 0) {
    CHECK(read(plain, &n, 8) == 8 && n == 0x123456789abcULL, "%llx", (unsigned long long)n);
    CHECK(read(semaphore, &n, 8) == 8 && n == 1);
    CHECK(read(semaphore, &n, 8) == 8 && n == 1);
    CHECK(read(full, &n, 8) == 8 && n == UINT64_MAX - 1);
  }
  CHECK(read(semaphore, &n, 8) < 0 && errno == EAGAIN);
  n = 2;
  CHECK(write(semaphore, &n, 8) == 8 && read(semaphore, &n, 8) == 8 && n == 1);
  CHECK(read(semaphore, &n, 8) == 8 && n == 1);
  CHECK((fcntl(blocking, F_GETFL) & (O_NONBLOCK | O_ACCMODE)) == O_RDWR);
  CHECK((fcntl(plain, F_GETFL) & O_NONBLOCK) && fcntl(plain, F_GETFD) == FD_CLOEXEC);
  n = 7;
  CHECK(write(dup(blocking), &n, 8) == 8 && read(blocking, &n, 8) == 8 && n == 7);
  struct signalfd_siginfo si;
  CHECK(read(sig, &si, sizeof si) < 0 && errno == EAGAIN);
  kill(getpid(), SIGUSR1);
  CHECK(read(sig, &si, sizeof si) == sizeof si && si.ssi_signo == SIGUSR1);
  kill(getpid(), SIGUSR2); // blocked and not in the mask
  CHECK(read(sig, &si, sizeof si) < 0 && errno == EAGAIN);
}

int main(void) {
  uint64_t n = 0x123456789abcULL;
  MUST((plain = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) >= 0 && write(plain, &n, 8) == 8);
  MUST((semaphore = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK)) >= 0);
  n = UINT64_MAX - 1;
  MUST((full = eventfd(0, 0)) >= 0 && write(full, &n, 8) == 8);
  MUST((blocking = eventfd(0, 0)) >= 0);
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGUSR2);
  sigaddset(&s, SIGUSR1);
  sigprocmask(SIG_BLOCK, &s, 0);
  sigdelset(&s, SIGUSR2);
  MUST((sig = signalfd(-1, &s, SFD_NONBLOCK)) >= 0);
  serve(verify);
}
