// SPDX-License-Identifier: Apache-2.0
// Waits on a futex with a time-out, by syscall(3).
#define _GNU_SOURCE
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static int word;
int main(void) {
	struct timespec t = {60, 0};
	write(1, "ready\n", 6);
	return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &t, 0, 0) ? 1 : 0;
}
