// SPDX-License-Identifier: Apache-2.0
#include "kerneltest.h"
static char *heap;
static void verify(void) {
  for (int i = 0; i < 1 << 20; i++) if (heap[i] != (char)(i * 7)) { CHECK(0, "heap at %d", i); return; }
}
int main(void) {
  heap = malloc(1 << 20);
  for (int i = 0; i < 1 << 20; i++) heap[i] = (char)(i * 7);
  serve(verify);
}
