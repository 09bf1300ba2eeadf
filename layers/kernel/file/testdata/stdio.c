// SPDX-License-Identifier: Apache-2.0
//
// The standard streams: moved, opened once more, with flags of their own.
#define _GNU_SOURCE
#include <fcntl.h>
#include "kerneltest.h"

static int again, moved;

static void verify(void) {
  CHECK((fcntl(1, F_GETFL) & O_NONBLOCK) == 0);
  CHECK((fcntl(again, F_GETFL) & (O_NONBLOCK | O_ACCMODE)) == (O_NONBLOCK | O_WRONLY), "%o", fcntl(again, F_GETFL));
  CHECK(fcntl(moved, F_GETFD) == FD_CLOEXEC);
  CHECK(write(moved, "", 0) == 0 && write(again, "", 0) == 0);
  // moved and 2 are one description.
  int fl = fcntl(2, F_GETFL);
  CHECK(fcntl(2, F_SETFL, fl | O_APPEND) == 0);
  CHECK(fcntl(moved, F_GETFL) & O_APPEND);
  CHECK(fcntl(2, F_SETFL, fl) == 0);
}

int main(void) {
  MUST((again = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK)) >= 0);
  MUST((moved = fcntl(2, F_DUPFD_CLOEXEC, 77)) == 77);
  serve(verify);
}
