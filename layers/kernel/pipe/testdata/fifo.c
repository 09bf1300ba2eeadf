// SPDX-License-Identifier: Apache-2.0
//
// A FIFO with both ends and unread content, one with its writer alone, and
// unread standard input: the first byte of it is the test's command, what
// follows stays unread.
// usage: fifo DIR
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include "kerneltest.h"

static int rw[2];

static void verify(void) {
  char buf[64] = {0};
  static int round;
  if (round++ == 0) CHECK(read(rw[0], buf, 64) == 4 && !memcmp(buf, "fifo", 4), "%s", buf);
  CHECK((fcntl(rw[0], F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_RDONLY | O_NONBLOCK));
  CHECK((fcntl(rw[1], F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == O_WRONLY);
  CHECK(read(rw[0], buf, 64) < 0 && errno == EAGAIN);
  int other = open("fifo", O_WRONLY | O_NONBLOCK);
  CHECK(other >= 0 && write(other, "new", 3) == 3 && close(other) == 0);
  CHECK(read(rw[0], buf, 64) == 3);
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  MUST(argc == 2 && chdir(argv[1]) == 0 && mkfifo("fifo", 0600) == 0);
  MUST((rw[0] = open("fifo", O_RDONLY | O_NONBLOCK)) >= 0);
  MUST((rw[1] = open("fifo", O_WRONLY)) >= 0);
  MUST(write(rw[1], "fifo", 4) == 4);
  serve(verify);
}
