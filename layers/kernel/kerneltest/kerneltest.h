// SPDX-License-Identifier: Apache-2.0
//
// What every test program needs: see doc.go for the protocol.
#ifndef KERNELTEST_H
#define KERNELTEST_H

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// fails is the first thing that a check found, empty while all is well.
static char fails[512];

__attribute__((unused, format(printf, 1, 2))) static void fail(const char *fmt, ...) {
  if (fails[0]) return;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(fails, sizeof fails, fmt, ap);
  va_end(ap);
}

// CHECK notes the first condition that does not hold.
#define CHECK(cond, ...)                                                      \
  do {                                                                        \
    if (!(cond)) {                                                            \
      int e_ = errno;                                                         \
      char m_[256];                                                           \
      snprintf(m_, sizeof m_, " " __VA_ARGS__);                               \
      fail("%s:%d: %s (errno %d)%s", __FILE__, __LINE__, #cond, e_, m_);      \
    }                                                                         \
  } while (0)

// MUST ends the program when its preparation fails.
#define MUST(cond)                                                            \
  do {                                                                        \
    if (!(cond)) {                                                            \
      dprintf(2, "%s:%d: %s: %s\n", __FILE__, __LINE__, #cond, strerror(errno)); \
      exit(3);                                                                \
    }                                                                         \
  } while (0)

// answer writes OK or what failed.
__attribute__((unused)) static void answer(void) {
  char line[600];
  int n = snprintf(line, sizeof line, "%s\n", fails[0] ? fails : "OK");
  if (write(1, line, n) != n) exit(4);
}

__attribute__((unused)) static void ready(void) {
  if (write(1, "ready\n", 6) != 6) exit(4);
}

// asked waits for a byte and reports whether to verify; the end of the input
// ends the program. An interrupted read is the test's finding.
__attribute__((unused)) static int asked(void) {
  char c;
  ssize_t n = read(0, &c, 1);
  if (n < 0) {
    fail("read of the commands failed: errno %d", errno);
    answer();
    exit(5);
  }
  if (n == 0) exit(0);
  return c == 'v';
}

// serve verifies on demand for ever.
__attribute__((unused)) static void serve(void (*verify)(void)) {
  ready();
  while (asked()) {
    verify();
    answer();
  }
  exit(6);
}

// polled is asked for programs that must not block.
__attribute__((unused)) static int polled(void) {
  struct pollfd p = {.fd = 0, .events = POLLIN};
  return poll(&p, 1, 0) > 0 && asked();
}

#endif
