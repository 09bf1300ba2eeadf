// SPDX-License-Identifier: Apache-2.0

// ticker MEGABYTES holds memory that it can verify and measures how long it does
// not run. On SIGUSR1 it prints one line:
//
//	ticks COUNT gap LARGEST-GAP-IN-NANOSECONDS memory ok|BAD pid PID
//
// and forgets the gap.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void on_usr1(int sig) { (void)sig; asked = 1; }

static uint64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t word(uint64_t i) {
	i += 0x9e3779b97f4a7c15u;
	i = (i ^ (i >> 30)) * 0xbf58476d1ce4e5b9u;
	i = (i ^ (i >> 27)) * 0x94d049bb133111ebu;
	return i ^ (i >> 31);
}

int main(int argc, char **argv) {
	size_t n = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1) << 20 >> 3;
	uint64_t *mem = malloc(n * sizeof *mem);
	if (!mem)
		return 1;
	for (size_t i = 0; i < n; i++)
		mem[i] = word(i);
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
		mem[ticks % n] = word(ticks % n + ticks); // written all the time, put back at once
		mem[ticks % n] = word(ticks % n);
		if (!asked)
			continue;
		asked = 0;
		int ok = 1;
		for (size_t i = 0; i < n; i++)
			ok &= mem[i] == word(i);
		printf("ticks %llu gap %llu memory %s pid %d\n", (unsigned long long)ticks, (unsigned long long)gap, ok ? "ok" : "BAD", getpid());
		gap = 0;
		last = now();
	}
}
