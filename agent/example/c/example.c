/* SPDX-License-Identifier: Apache-2.0
 *
 * The same application as main.go, in C. */
#define _GNU_SOURCE
#define MIG_AGENT_IMPLEMENTATION
#include "../../mig_agent.h"

#include <stdatomic.h>
#include <stdarg.h>
#include <sys/stat.h>

static const char *list;
static char hang[4096];
static struct mig_barrier *barrier;
static atomic_ulong done;
static unsigned long met;

static void note(const char *format, ...)
{
	va_list args;
	FILE *f = fopen(list, "a");
	if (!f) {
		perror(list);
		return;
	}
	va_start(args, format);
	vfprintf(f, format, args);
	va_end(args);
	fputc('\n', f);
	fclose(f);
}

static int before(void *arg, const char *event, int move, unsigned ms)
{
	int late;
	(void)arg, (void)event;
	note("before move=%s", move ? "true" : "false");
	late = mig_barrier_close(barrier, ms);
	met = done;
	return late;
}

static void after(void *arg, const struct mig_outcome *o)
{
	unsigned long n = done;
	(void)arg;
	if (o->event[0] && !o->reason[0] && n != met)
		note("%lu steps were made behind the barrier", n - met);
	char *reason = strdup(o->reason);
	for (char *p = reason; p && *p; p++)
		if (*p == '\n')
			*p = ' ';
	note("after restored=%s generation=%s \"%s\"", o->restored ? "true" : "false", o->generation, reason ? reason : "");
	free(reason);
	mig_barrier_open(barrier);
}

static void *work(void *arg)
{
	struct stat st;
	(void)arg;
	for (;;) {
		if (++done % 1024 == 0)
			usleep(100);
		if (stat(hang, &st))
			mig_barrier_check(barrier);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	sigset_t asks;
	int s;
	struct mig_agent *a;
	char *slash;
	if (argc != 2)
		return 2;
	list = argv[1];
	snprintf(hang, sizeof hang - 8, "%s", list);
	slash = strrchr(hang, '/');
	strcpy(slash ? slash + 1 : hang, "hang");
	sigemptyset(&asks);
	sigaddset(&asks, SIGUSR1);
	sigaddset(&asks, SIGUSR2);
	sigprocmask(SIG_BLOCK, &asks, NULL);
	barrier = mig_barrier_new();
	a = mig_agent_start(NULL, before, after, NULL);
	if (!barrier || !a) {
		perror("mig agent");
		return 1;
	}
	for (s = 0; s < 4; s++) {
		pthread_t t;
		mig_barrier_join(barrier);
		if (pthread_create(&t, NULL, work, NULL))
			return 1;
	}
	note("ready generation=%s", a->generation);
	for (;;) {
		const char *host = getenv("HOST");
		if (sigwait(&asks, &s))
			return 1;
		s = s == SIGUSR1 ? mig_agent_checkpoint(a, 0) : mig_agent_migrate(a, host ? host : "");
		note("asked: %s", s ? strerror(errno) : "sent");
	}
}
