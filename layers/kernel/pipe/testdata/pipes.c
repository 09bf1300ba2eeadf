// SPDX-License-Identifier: Apache-2.0
//
// Pipes: unread content, capacity, packets, one end closed, ends that were
// opened again, crossed numbers.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include "kerneltest.h"

static int plain[2], packet[2], eof[2], broken[2], big[2], crossed[2], again;
enum { BIG = 300000, CAPACITY = 1 << 20 };

static void verify(void) {
  static char buf[CAPACITY];
  static int round;
  if (round++ == 0) {
    // Reads everything: later rounds find the pipes empty.
    CHECK(read(plain[0], buf, 100) == 11 && !memcmp(buf, "hello, pipe", 11), "%.11s", buf);
    CHECK(read(packet[0], buf, 100) == 3 && !memcmp(buf, "one", 3));
    CHECK(read(packet[0], buf, 100) == 5 && !memcmp(buf, "three", 5));
    CHECK(read(eof[0], buf, 100) == 4);
    long n = 0;
    while (n < BIG) {
      ssize_t r = read(big[0], buf + n, sizeof buf - n);
      CHECK(r > 0);
      if (r <= 0) return;
      n += r;
    }
    for (int i = 0; i < BIG; i++) CHECK(buf[i] == (char)(i % 251));
  }
  CHECK(read(eof[0], buf, 100) == 0);
  CHECK(write(broken[1], "x", 1) < 0 && errno == EPIPE);
  CHECK(fcntl(big[1], F_GETPIPE_SZ) == CAPACITY, "%d", fcntl(big[1], F_GETPIPE_SZ));
  CHECK(fcntl(plain[1], F_GETPIPE_SZ) == 65536);
  CHECK((fcntl(plain[0], F_GETFL) & (O_NONBLOCK | O_ACCMODE)) == (O_NONBLOCK | O_RDONLY));
  CHECK((fcntl(plain[1], F_GETFL) & (O_NONBLOCK | O_ACCMODE)) == O_WRONLY);
  CHECK(read(plain[0], buf, 1) < 0 && errno == EAGAIN);
  CHECK((fcntl(again, F_GETFL) & (O_NONBLOCK | O_ACCMODE)) == (O_NONBLOCK | O_WRONLY));
  CHECK(write(again, "ab", 2) == 2 && read(plain[0], buf, 5) == 2);
  CHECK(write(packet[1], "p", 1) == 1 && write(packet[1], "q", 1) == 1);
  CHECK(read(packet[0], buf, 5) == 1 && read(packet[0], buf, 5) == 1);
  CHECK(write(crossed[1], "c", 1) == 1 && read(crossed[0], buf, 5) == 1);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  MUST(pipe(plain) == 0 && write(plain[1], "hello, pipe", 11) == 11);
  MUST(fcntl(plain[0], F_SETFL, O_NONBLOCK) == 0);
  MUST(pipe2(packet, O_DIRECT) == 0 && write(packet[1], "one", 3) == 3 && write(packet[1], "three", 5) == 5);
  MUST(pipe(eof) == 0 && write(eof[1], "last", 4) == 4 && close(eof[1]) == 0);
  MUST(pipe(broken) == 0 && close(broken[0]) == 0);
  MUST(pipe(big) == 0 && fcntl(big[1], F_SETPIPE_SZ, CAPACITY) == CAPACITY);
  static char buf[BIG];
  for (int i = 0; i < BIG; i++) buf[i] = i % 251;
  MUST(write(big[1], buf, BIG) == BIG);
  MUST((again = open("/proc/self/fd/4", O_WRONLY | O_NONBLOCK)) >= 0);
  // The reader has the higher number.
  int x[2];
  MUST(pipe(x) == 0);
  int t = dup(x[0]);
  MUST(dup2(x[1], x[0]) == x[0] && dup2(t, x[1]) == x[1] && close(t) == 0);
  crossed[0] = x[1], crossed[1] = x[0];
  serve(verify);
}
