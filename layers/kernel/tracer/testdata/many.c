// SPDX-License-Identifier: Apache-2.0
// Argument: threads that wait. With "exit" as second: the leader exits alone,
// with "later" when it is told to, with "all" it exits with all of them then.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <string.h>
#include <unistd.h>
static void *wait_(void *a) { for (;;) pause(); }
int main(int argc, char **argv) {
	int n = atoi(argv[1]);
	pthread_attr_t at;
	pthread_attr_init(&at);
	pthread_attr_setstacksize(&at, 65536);
	pthread_t t;
	for (int i = 1; i < n; i++) if (pthread_create(&t, &at, wait_, 0)) abort();
	setvbuf(stdout, 0, _IOLBF, 0);
	printf("ready\n");
	if (argc > 2 && !strcmp(argv[2], "exit")) syscall(SYS_exit, 0);
	if (argc > 2 && !strcmp(argv[2], "vfork")) if (!vfork()) { sleep(1); _exit(0); }
	char told;
	if (argc > 2 && !strcmp(argv[2], "later")) syscall(SYS_exit, read(0, &told, 1));
	if (argc > 2 && !strcmp(argv[2], "all")) _exit(read(0, &told, 1));
	for (char c; read(0, &c, 1) > 0;) printf("OK\n");
	return 7;
}
