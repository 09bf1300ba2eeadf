// SPDX-License-Identifier: Apache-2.0

// ticker MEGABYTES [CHILDREN [PAGES]] holds memory that it can verify, in which so
// many pages repeat themselves, and measures how long it does not run. Its children count in memory that all share; it is BAD if
// one of them does not. On SIGUSR1 it prints one line:
//
//	ticks COUNT gap LARGEST-GAP-IN-NANOSECONDS memory ok|BAD pid PID
//
// and forgets the gap.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void on_usr1(int sig) { (void)sig; asked = 1; }

static uint64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t period;

static uint64_t word(uint64_t i) {
	if (period)
		i %= period;
	i += 0x9e3779b97f4a7c15u;
	i = (i ^ (i >> 30)) * 0xbf58476d1ce4e5b9u;
	i = (i ^ (i >> 27)) * 0x94d049bb133111ebu;
	return i ^ (i >> 31);
}

int main(int argc, char **argv) {
	size_t n = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1) << 20 >> 3;
	period = argc > 3 ? strtoul(argv[3], NULL, 10) * 4096 / sizeof(uint64_t) : 0;
	uint64_t *mem = malloc(n * sizeof *mem);
	if (!mem)
		return 1;
	for (size_t i = 0; i < n; i++)
		mem[i] = word(i);
	int children = argc > 2 ? atoi(argv[2]) : 0;
	volatile uint64_t *counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int c = 0; c < children; c++) {
		if (fork() == 0) {
			for (;;) {
				counts[c]++;
				usleep(200);
			}
		}
	}
	struct sigaction sa = {.sa_handler = on_usr1};
	sigaction(SIGUSR1, &sa, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready\n");
	uint64_t ticks = 0, gap = 0, last = now();
	for (;;) {
		struct timespec pause = {0, 100000};
		nanosleep(&pause, NULL);
		uint64_t t = now();
		if (t - last > gap)
			gap = t - last;
		last = t;
		ticks++;
		mem[ticks % n] = ~word(ticks % n); // written all the time, put back at once
		mem[ticks % n] = word(ticks % n);
		if (!asked)
			continue;
		asked = 0;
		int ok = 1;
		for (size_t i = 0; i < n; i++)
			ok &= mem[i] == word(i);
		for (int c = 0; c < children; c++) {
			uint64_t was = counts[c];
			for (int wait = 0; counts[c] == was && wait < 20000; wait++)
				usleep(1000);
			ok &= counts[c] != was;
		}
		printf("ticks %llu gap %llu memory %s pid %d\n", (unsigned long long)ticks, (unsigned long long)gap, ok ? "ok" : "BAD", getpid());
		gap = 0;
		last = now();
	}
}
