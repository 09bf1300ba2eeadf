// SPDX-License-Identifier: Apache-2.0
// Two processes in one memory, which notice when their state is disturbed. Says the
// other one's id, and answers v (verify) and q (quit) on stdin. The other one has the
// thread-local storage in common, so it makes its calls without errno.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile long spins;
static const char *volatile bad;
static char stack[1 << 17] __attribute__((aligned(64)));

static long call(long nr, long a, long b, long c, long d) {
	register long r10 asm("r10") = d;
	long ret;
	asm volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return ret;
}

static int lodger(void *unused) {
	uint64_t in[8], out[8];
	long me = call(SYS_getpid, 0, 0, 0, 0);
	for (uint64_t k = 1;; k++) {
		for (int i = 0; i < 8; i++) in[i] = k * 0x9e3779b97f4a7c15u + i;
		asm volatile(
			"mov 0(%0),%%r8\n mov 8(%0),%%r9\n mov 16(%0),%%r10\n mov 24(%0),%%r11\n"
			"mov 32(%0),%%r12\n mov 40(%0),%%r13\n mov 48(%0),%%r14\n mov 56(%0),%%r15\n"
			"movq %%r8,%%xmm3\n movq %%r15,%%xmm14\n"
			"mov $30000,%%rcx\n 1: dec %%rcx\n jnz 1b\n"
			"movq %%xmm3,%%r8\n movq %%xmm14,%%r15\n"
			"mov %%r8,0(%1)\n mov %%r9,8(%1)\n mov %%r10,16(%1)\n mov %%r11,24(%1)\n"
			"mov %%r12,32(%1)\n mov %%r13,40(%1)\n mov %%r14,48(%1)\n mov %%r15,56(%1)\n"
			:: "r"(in), "r"(out) : "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm3", "xmm14", "memory");
		for (int i = 0; i < 8; i++) if (in[i] != out[i]) bad = "registers";
		struct timespec ts = {0, 100000};
		if (call(SYS_nanosleep, (long)&ts, 0, 0, 0) != 0) bad = "nanosleep";
		uint64_t mask = 0;
		if (call(SYS_rt_sigprocmask, SIG_BLOCK, 0, (long)&mask, 8) != 0 || mask != 0) bad = "signal mask";
		if (call(SYS_getpid, 0, 0, 0, 0) != me) bad = "process id";
		spins++;
	}
}

static int deep(int n) {
	volatile char room[1024];
	memset((void *)room, n, sizeof room);
	int below = n > 0 ? deep(n - 1) : 0;
	for (unsigned i = 0; i < sizeof room; i++) if (room[i] != (char)n) return 1;
	return below;
}

static int mappings(void) {
	static char text[1 << 16];
	FILE *f = fopen("/proc/self/maps", "r");
	int n = 0;
	while (fgets(text, sizeof text, f)) n++;
	fclose(f);
	return n;
}

int main(int argc, char **argv) {
	int flags = CLONE_VM | (argc > 1 ? CLONE_SIGHAND | CLONE_FS | CLONE_FILES : 0);
	mappings();
	int before = mappings();
	pid_t pid = clone(lodger, stack + sizeof stack, flags | SIGCHLD, 0);
	if (pid < 0) return 1;
	setvbuf(stdout, 0, _IOLBF, 0);
	printf("ready\n%d\n", pid);
	for (char c; read(0, &c, 1) == 1 && c != 'q';) {
		if (c != 'v') continue;
		long was = spins;
		int status;
		for (int i = 0; i < 5000 && spins < was + 3; i++) usleep(1000);
		if (spins < was + 3) bad = "it does not go on";
		if (deep(60)) bad = "the stack";
		if (waitpid(pid, &status, WNOHANG) != 0) printf("BAD: it has ended, status %#x\n", status);
		else if (bad) printf("BAD: %s\n", bad);
		else printf("OK rt=0 eintr=0 alarms=0 maps=%d\n", mappings() - before);
	}
	return 7;
}
