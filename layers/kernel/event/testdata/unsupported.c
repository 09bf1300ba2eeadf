// SPDX-License-Identifier: Apache-2.0
//
// usage: unsupported fanotify
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/fanotify.h>
#include "kerneltest.h"

static void verify(void) {}

int main(int argc, char **argv) {
  MUST(argc == 2);
  switch (argv[1][0]) {
  case 'f':
    MUST(fanotify_init(FAN_CLASS_CONTENT, 0) == 3);
    MUST(fanotify_mark(3, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, "/proc/self/exe") == 0);
    break;
  }
  serve(verify);
}
