// SPDX-License-Identifier: Apache-2.0
//
// Leaves its standard input unread until a file appears.
// usage: lazy DIR
#include "kerneltest.h"

int main(int argc, char **argv) {
  MUST(argc == 2 && chdir(argv[1]) == 0);
  ready();
  while (access("go", F_OK) != 0) usleep(1000);
  char buf[64] = {0};
  CHECK(read(0, buf, sizeof buf) == 6 && !memcmp(buf, "unread", 6), "%s", buf);
  answer();
  while (asked()) answer();
}
