// SPDX-License-Identifier: Apache-2.0
//
// usage: unsupported fanotify
#define _GNU_SOURCE
#include <sys/fanotify.h>
#include "kerneltest.h"

static void verify(void) {}

int main(int argc, char **argv) {
  MUST(argc == 2);
  switch (argv[1][0]) {
  case 'f': MUST(fanotify_init(FAN_CLASS_NOTIF, 0) == 3); break;
  }
  serve(verify);
}
