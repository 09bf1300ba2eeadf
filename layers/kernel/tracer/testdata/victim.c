// SPDX-License-Identifier: Apache-2.0
// A program that notices when its state is disturbed. Threads: one computes
// with all general and vector registers, one makes timed system calls, the
// main thread answers commands on stdin: v (verify), q (quit).
#define _GNU_SOURCE
#include <errno.h>
#include <immintrin.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <linux/futex.h>

static _Atomic long rt, alarms, spins, calls, eintr;
static char bad[512];
static pthread_mutex_t badlock = PTHREAD_MUTEX_INITIALIZER;

static void fail(const char *fmt, ...) {
	va_list ap;
	va_start(ap, fmt);
	pthread_mutex_lock(&badlock);
	if (!bad[0]) vsnprintf(bad, sizeof bad, fmt, ap);
	pthread_mutex_unlock(&badlock);
	va_end(ap);
}
static void on_rt(int s, siginfo_t *i, void *u) {
	if (i->si_code == SI_QUEUE && i->si_value.sival_int != 4711) fail("siginfo value %d", i->si_value.sival_int);
	rt++;
}
static void on_alarm(int s) { alarms++; }

#define N (1 << 17)
static uint64_t mem[N];

static void *compute(void *a) {
	uint64_t in[8], out[8], vin[16][4] __attribute__((aligned(32))), vout[16][4] __attribute__((aligned(32)));
	int avx = __builtin_cpu_supports("avx");
	for (uint64_t k = 1;; k++) {
		for (int i = 0; i < 8; i++) in[i] = k * 0x9e3779b97f4a7c15u + i;
		for (int i = 0; i < 16; i++) for (int j = 0; j < 4; j++) vin[i][j] = k * (i + 3) + j * 77777777777u;
		if (avx)
			asm volatile(
				"vmovdqa 0(%0),%%ymm0\n vmovdqa 32(%0),%%ymm1\n vmovdqa 64(%0),%%ymm2\n vmovdqa 96(%0),%%ymm3\n"
				"vmovdqa 128(%0),%%ymm4\n vmovdqa 160(%0),%%ymm5\n vmovdqa 192(%0),%%ymm6\n vmovdqa 224(%0),%%ymm7\n"
				"vmovdqa 256(%0),%%ymm8\n vmovdqa 480(%0),%%ymm15\n"
				"mov $20000,%%rcx\n 1: dec %%rcx\n jnz 1b\n"
				"vmovdqa %%ymm0,0(%1)\n vmovdqa %%ymm1,32(%1)\n vmovdqa %%ymm2,64(%1)\n vmovdqa %%ymm3,96(%1)\n"
				"vmovdqa %%ymm4,128(%1)\n vmovdqa %%ymm5,160(%1)\n vmovdqa %%ymm6,192(%1)\n vmovdqa %%ymm7,224(%1)\n"
				"vmovdqa %%ymm8,256(%1)\n vmovdqa %%ymm15,480(%1)\n"
				:: "r"(vin), "r"(vout) : "rcx", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm15");
		asm volatile(
			"mov 0(%0),%%r8\n mov 8(%0),%%r9\n mov 16(%0),%%r10\n mov 24(%0),%%r11\n"
			"mov 32(%0),%%r12\n mov 40(%0),%%r13\n mov 48(%0),%%r14\n mov 56(%0),%%r15\n"
			"push %%rax\n"
			"mov $20000,%%rcx\n 1: dec %%rcx\n jnz 1b\n"
			"pop %%rax\n"
			"mov %%r8,0(%1)\n mov %%r9,8(%1)\n mov %%r10,16(%1)\n mov %%r11,24(%1)\n"
			"mov %%r12,32(%1)\n mov %%r13,40(%1)\n mov %%r14,48(%1)\n mov %%r15,56(%1)\n"
			:: "r"(in), "r"(out) : "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
		if (memcmp(in, out, sizeof in)) fail("general registers at %lu", k);
		if (avx) for (int i = 0; i < 16; i++) if ((i < 9 || i == 15) && memcmp(vin[i], vout[i], 32)) fail("ymm%d at %lu", i, k);
		spins++;
	}
	return 0;
}

static void *timed(void *a) {
	int ep = epoll_create1(0), word = 0, p[2];
	struct epoll_event ev;
	if (pipe(p)) fail("pipe");
	sigset_t all; // handlers run in the main thread: an EINTR here is spurious
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, 0);
	for (;;) {
		struct timespec ts = {0, 300000}, ft = {0, 200000};
		errno = 0;
		if (nanosleep(&ts, 0)) fail("nanosleep: %m");
		int r = epoll_wait(ep, &ev, 1, 1);
		if (r < 0 && errno == EINTR) eintr++;
		else if (r != 0) fail("epoll_wait %d: %m", r);
		r = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &ft, 0, 0);
		if (r != -1 || errno != ETIMEDOUT) fail("futex %d: %m", r);
		char c = 'x';
		if (write(p[1], &c, 1) != 1 || read(p[0], &c, 1) != 1 || c != 'x') fail("pipe: %m");
		sigset_t now;
		pthread_sigmask(SIG_BLOCK, 0, &now);
		if (!sigismember(&now, SIGUSR2)) fail("signal mask changed");
		calls++;
	}
	return 0;
}

static int maps(void) {
	FILE *f = fopen("/proc/self/maps", "r");
	char *l = 0;
	size_t n = 0;
	int c = 0;
	while (getline(&l, &n, f) > 0) c++;
	fclose(f);
	free(l);
	return c;
}

int main(int argc, char **argv) {
	struct sigaction sa = {.sa_sigaction = on_rt, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGRTMIN + 1, &sa, 0);
	struct sigaction al = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &al, 0);
	signal(SIGTRAP, SIG_IGN);
	int handle = argc > 1 && strstr(argv[1], "handle");
	if (handle) for (int s = 1; s < 32; s++) // leaves no signal that is ignored
		if (s != SIGKILL && s != SIGSTOP && s != SIGTRAP && s != SIGCONT) sigaction(s, &al, 0);
	if (argc > 1 && strstr(argv[1], "alarm")) {
		struct itimerval it = {{0, 700}, {0, 700}};
		setitimer(ITIMER_REAL, &it, 0);
	}
	for (uint64_t i = 0; i < N; i++) mem[i] = i * 0x9e3779b97f4a7c15u;
	prctl(PR_SET_NAME, "victim");
	pthread_t t;
	pthread_create(&t, 0, compute, 0);
	pthread_create(&t, 0, timed, 0);
	maps();
	usleep(5000);
	int m0 = maps();
	setvbuf(stdout, 0, _IOLBF, 0);
	printf("ready\n");
	for (;;) {
		char c;
		ssize_t n = read(0, &c, 1);
		if (n < 0) { fail("read: %m"); continue; }
		if (n == 0 || c == 'q') return 7;
		if (c != 'v') continue;
		for (uint64_t i = 0; i < N; i++) if (mem[i] != i * 0x9e3779b97f4a7c15u) { fail("memory at %lu", i); break; }
		struct sigaction old;
		sigaction(SIGTRAP, 0, &old);
		if (old.sa_handler != SIG_IGN) fail("SIGTRAP is not ignored any more");
		sigset_t now;
		pthread_sigmask(SIG_BLOCK, 0, &now);
		for (int s = 1; s < 64; s++) if (sigismember(&now, s) == 1) fail("signal %d is blocked", s);
		long s0 = spins, c0 = calls;
		for (int i = 0; i < 400 && (spins == s0 || calls == c0); i++) usleep(5000);
		if (spins == s0 || calls == c0) fail("a thread does not run: spins %ld calls %ld", spins - s0, calls - c0);
		if (bad[0]) printf("BAD %s\n", bad);
		else printf("OK rt=%ld eintr=%ld alarms=%ld maps=%d\n", rt, eintr, alarms, maps() - m0);
	}
}
