// SPDX-License-Identifier: Apache-2.0
// Makes and ends threads and processes as fast as it can.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void *nop(void *a) { return 0; }
static void *threads(void *a) {
	for (;;) {
		pthread_t t;
		if (!pthread_create(&t, 0, nop, 0)) pthread_join(t, 0);
	}
}
static void *forks(void *a) {
	for (;;) {
		pid_t p = fork();
		if (!p) _exit(3);
		int st;
		if (p > 0 && (waitpid(p, &st, 0) != p || WEXITSTATUS(st) != 3)) { printf("BAD wait\n"); abort(); }
	}
}
static void *vforks(void *a) {
	for (;;) {
		pid_t p = vfork();
		if (!p) _exit(4);
		int st;
		if (p > 0 && (waitpid(p, &st, 0) != p || WEXITSTATUS(st) != 4)) { printf("BAD vwait\n"); abort(); }
	}
}
int main(int argc, char **argv) {
	pthread_t t;
	for (int i = 0; i < 2; i++) pthread_create(&t, 0, threads, 0);
	if (argc < 2) pthread_create(&t, 0, forks, 0);
	if (argc < 2) pthread_create(&t, 0, vforks, 0);
	setvbuf(stdout, 0, _IOLBF, 0);
	printf("ready\n");
	for (char c; read(0, &c, 1) > 0;) printf("OK\n");
	return 7;
}
