// SPDX-License-Identifier: Apache-2.0
//
// Becomes another program, its arguments, once it has said that it is there.
#include "kerneltest.h"

int main(int argc, char **argv) {
  ready();
  execv(argv[1], argv + 2);
  return 1;
}
