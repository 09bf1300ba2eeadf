// SPDX-License-Identifier: Apache-2.0
// Execs itself again and again, from a thread that is not the leader, while
// others run.
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static char **av;
static void *spin(void *a) { for (;;) usleep(100); }
static void *again(void *a) {
	char *v[] = {av[0], "again", 0};
	usleep(500);
	execv("/proc/self/exe", v);
	return 0;
}
int main(int argc, char **argv) {
	pthread_t t;
	av = argv;
	pthread_create(&t, 0, spin, 0);
	pthread_create(&t, 0, spin, 0);
	if (argc < 2) write(1, "ready\n", 6);
	pthread_create(&t, 0, again, 0);
	for (;;) pause();
}
