/* SPDX-License-Identifier: Apache-2.0
 *
 * mig_agent.h lets a C or C++ application take part in the checkpoints and moves
 * of the container that it runs in (annotation io.mig/agent=true). One file of
 * the program defines MIG_AGENT_IMPLEMENTATION before it includes this header.
 * POSIX threads; nothing else is needed. docs/agent.md has the protocol.
 *
 *	static int before(void *arg, const char *event, int move, unsigned ms) { flush(); return 0; }
 *	static void after(void *arg, const struct mig_outcome *o) { if (o->restored) reseed(o->generation); }
 *
 *	struct mig_agent *a = mig_agent_start(NULL, before, after, NULL);
 *	if (!a && errno != ENOENT) perror("mig agent");    // ENOENT: there is no agent
 */
#ifndef MIG_AGENT_H
#define MIG_AGENT_H

#ifdef __cplusplus
extern "C" {
#endif

/* What came of an event. The strings are the library's and valid in the hook. */
struct mig_outcome {
	const char *event;      /* its id; empty if nobody had asked before */
	int restored;           /* this process is part of the copy */
	const char *reason;     /* why the event failed; empty if it did not */
	const char *generation; /* 32 hexadecimal digits, other ones in every copy */
};

/* Runs before the state is taken, in a thread of the library, and has ms
 * milliseconds. Anything but 0 refuses the event, which is then undone. */
typedef int (*mig_before)(void *arg, const char *event, int move, unsigned ms);
/* Runs when the container goes on, as the original or as the copy. */
typedef void (*mig_after)(void *arg, const struct mig_outcome *o);

struct mig_agent;

/* Connects and runs the hooks from then on. path may be NULL. NULL with errno is
 * a failure; ENOENT means that the container has no agent. */
struct mig_agent *mig_agent_start(const char *path, mig_before before, mig_after after, void *arg);

/* Asks for a checkpoint into the directory of the annotation
 * io.mig/agent-checkpoint, or a move to a host of io.mig/agent-migrate. It does
 * not wait: the hooks tell the rest. -1 with errno if it could not be sent. */
int mig_agent_checkpoint(struct mig_agent *a, int exits);
int mig_agent_migrate(struct mig_agent *a, const char *host);

/* A barrier at which threads meet while the state is taken. Each thread joins,
 * calls check where it may stand still, and leaves. close is for the hook
 * before: 0 when all are there, -1 if they are not within ms milliseconds (and
 * the barrier is open again); open is for the hook after. */
struct mig_barrier;
struct mig_barrier *mig_barrier_new(void);
void mig_barrier_join(struct mig_barrier *b);
void mig_barrier_leave(struct mig_barrier *b);
void mig_barrier_check(struct mig_barrier *b);
int mig_barrier_close(struct mig_barrier *b, unsigned ms);
void mig_barrier_open(struct mig_barrier *b);

#ifdef __cplusplus
}
#endif
#endif /* MIG_AGENT_H */

#ifdef MIG_AGENT_IMPLEMENTATION

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MIG_LINE 4096 /* with its line feed, which becomes the end of the string */

struct mig_agent {
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	mig_before before;
	mig_after after;
	void *arg;
	pthread_mutex_t lock; /* of fd and of writing to it */
	int fd;
	/* Below: of the library's thread. */
	char event[128], generation[64];
	char in[MIG_LINE];
	size_t have;
};

static int mig_send(int fd, const char *s)
{
	size_t n = strlen(s);
	while (n > 0) {
		ssize_t w = send(fd, s, n, MSG_NOSIGNAL);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -1;
		s += w;
		n -= (size_t)w;
	}
	return 0;
}

/* Reads one line into a->in, without its line feed. -1 at the end. */
static int mig_receive(struct mig_agent *a, char *line)
{
	for (;;) {
		char *end = (char *)memchr(a->in, '\n', a->have);
		if (end) {
			size_t n = (size_t)(end - a->in);
			memcpy(line, a->in, n);
			line[n] = 0;
			a->have -= n + 1;
			memmove(a->in, end + 1, a->have);
			return 0;
		}
		if (a->have == sizeof a->in)
			return -1;
		ssize_t r = read(a->fd, a->in + a->have, sizeof a->in - a->have);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -1;
		a->have += (size_t)r;
	}
}

static int mig_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 32;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Copies the value of a key, unescaped; an empty string if there is none. */
static void mig_field(const char *line, const char *key, char *out, size_t size)
{
	size_t k = strlen(key), n = 0;
	const char *p = strchr(line, ' ');
	while (p && (strncmp(p + 1, key, k) || p[k + 1] != '='))
		p = strchr(p + 1, ' ');
	for (p = p ? p + k + 2 : ""; *p && *p != ' ' && n + 1 < size; p++) {
		if (*p == '%' && mig_hex(p[1]) >= 0 && mig_hex(p[2]) >= 0) {
			out[n++] = (char)(mig_hex(p[1]) << 4 | mig_hex(p[2]));
			p += 2;
		} else {
			out[n++] = *p == '+' ? ' ' : *p;
		}
	}
	out[n] = 0;
}

static int mig_is(const char *line, const char *verb)
{
	size_t n = strlen(verb);
	return !strncmp(line, verb, n) && (line[n] == ' ' || !line[n]);
}

/* Connects, and has the first line of the shim in line. */
static int mig_open(struct mig_agent *a, char *line)
{
	struct sockaddr_un to;
	char hello[sizeof a->event + 64];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	memset(&to, 0, sizeof to);
	to.sun_family = AF_UNIX;
	memcpy(to.sun_path, a->path, sizeof to.sun_path);
	if (connect(fd, (struct sockaddr *)&to, sizeof to)) {
		int why = errno;
		close(fd);
		errno = why;
		return -1;
	}
	pthread_mutex_lock(&a->lock);
	a->fd = fd;
	a->have = 0;
	pthread_mutex_unlock(&a->lock);
	/* An event's id has nothing to escape. */
	snprintf(hello, sizeof hello, a->event[0] ? "HELLO version=1 event=%s\n" : "HELLO version=1\n", a->event);
	if (!mig_send(fd, hello) && !mig_receive(a, line) && (mig_is(line, "WELCOME") || mig_is(line, "RESUMED")))
		return 0;
	pthread_mutex_lock(&a->lock);
	a->fd = -1;
	pthread_mutex_unlock(&a->lock);
	close(fd);
	errno = EPROTO;
	return -1;
}

static void mig_resumed(struct mig_agent *a, const char *event, int restored, const char *reason)
{
	struct mig_outcome o;
	o.event = event;
	o.restored = restored;
	o.reason = reason;
	o.generation = a->generation;
	if (a->after)
		a->after(a->arg, &o);
	a->event[0] = 0;
}

/* Acts on RESUMED, or on the first line of a connection. */
static void mig_heed(struct mig_agent *a, const char *line)
{
	char generation[64], outcome[32], reason[MIG_LINE], event[128];
	int other;
	mig_field(line, "generation", generation, sizeof generation);
	mig_field(line, "outcome", outcome, sizeof outcome);
	mig_field(line, "reason", reason, sizeof reason);
	mig_field(line, "event", event, sizeof event);
	other = generation[0] && strcmp(generation, a->generation);
	if (generation[0])
		memcpy(a->generation, generation, sizeof generation);
	if (mig_is(line, "RESUMED"))
		mig_resumed(a, event, !strcmp(outcome, "restored"), reason);
	else if (other || a->event[0]) { /* nobody asked, or the outcome is not known */
		memcpy(event, a->event, sizeof event);
		mig_resumed(a, event, other, "");
	}
}

static void mig_pause(long ms)
{
	struct timespec t;
	t.tv_sec = ms / 1000;
	t.tv_nsec = ms % 1000 * 1000000;
	nanosleep(&t, NULL);
}

static void mig_prepare(struct mig_agent *a, const char *line)
{
	char kind[32], ms[32], answer[sizeof a->event + 64];
	int refused;
	if (a->event[0]) /* the one before was given up without a word */
		mig_resumed(a, a->event, 0, "");
	mig_field(line, "event", a->event, sizeof a->event);
	mig_field(line, "kind", kind, sizeof kind);
	mig_field(line, "timeout_ms", ms, sizeof ms);
	refused = a->before ? a->before(a->arg, a->event, !strcmp(kind, "move"), (unsigned)strtoul(ms, NULL, 10)) : 0;
	snprintf(answer, sizeof answer, refused ? "REFUSE event=%s reason=%d\n" : "READY event=%s\n", a->event, refused);
	pthread_mutex_lock(&a->lock);
	mig_send(a->fd, answer);
	pthread_mutex_unlock(&a->lock);
}

static void *mig_serve(void *arg)
{
	struct mig_agent *a = (struct mig_agent *)arg;
	char line[MIG_LINE];
	long n, pause;
	for (;;) {
		while (!mig_receive(a, line)) {
			if (mig_is(line, "PREPARE"))
				mig_prepare(a, line);
			else if (mig_is(line, "RESUMED"))
				mig_heed(a, line);
		}
		pthread_mutex_lock(&a->lock);
		close(a->fd);
		a->fd = -1;
		pthread_mutex_unlock(&a->lock);
		/* The state is being taken, or was meanwhile. Nobody knows how long the
		 * process is frozen between two attempts, so that time does not count. */
		for (n = 0, pause = 1; mig_open(a, line); n++) {
			if (n == 6000 && a->event[0])
				mig_resumed(a, a->event, 0, "the shim does not answer");
			mig_pause(pause);
			pause = n > 6000 ? 1000 : pause < 5 ? pause + 1 : 5;
		}
		mig_heed(a, line);
	}
	return NULL;
}

struct mig_agent *mig_agent_start(const char *path, mig_before before, mig_after after, void *arg)
{
	char line[MIG_LINE];
	sigset_t all, old;
	pthread_t thread;
	int err;
	struct mig_agent *a = (struct mig_agent *)calloc(1, sizeof *a);
	if (!a)
		return NULL;
	if (!path)
		path = "/run/mig/agent.sock";
	if (strlen(path) >= sizeof a->path) {
		free(a);
		errno = ENAMETOOLONG;
		return NULL;
	}
	strcpy(a->path, path);
	a->before = before;
	a->after = after;
	a->arg = arg;
	a->fd = -1;
	pthread_mutex_init(&a->lock, NULL);
	if (mig_open(a, line)) {
		err = errno;
		free(a);
		errno = err;
		return NULL;
	}
	mig_field(line, "generation", a->generation, sizeof a->generation);
	/* The application's signals are its own threads'. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&thread, NULL, mig_serve, a);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err) {
		close(a->fd);
		free(a);
		errno = err;
		return NULL;
	}
	pthread_detach(thread);
	return a;
}

static int mig_ask(struct mig_agent *a, const char *line)
{
	int r = -1;
	pthread_mutex_lock(&a->lock);
	errno = ENOTCONN;
	if (a->fd >= 0)
		r = mig_send(a->fd, line);
	pthread_mutex_unlock(&a->lock);
	return r;
}

int mig_agent_checkpoint(struct mig_agent *a, int exits)
{
	return mig_ask(a, exits ? "CHECKPOINT exit=true\n" : "CHECKPOINT\n");
}

int mig_agent_migrate(struct mig_agent *a, const char *host)
{
	char line[MIG_LINE];
	const char *p;
	size_t n = (size_t)snprintf(line, sizeof line, "MIGRATE host=");
	for (p = host; *p && n + 8 < sizeof line; p++)
		n += (size_t)snprintf(line + n, sizeof line - n, "%%%02X", (unsigned char)*p);
	if (*p) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(line + n, "\n");
	return mig_ask(a, line);
}

struct mig_barrier {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	volatile int closed; /* read without the lock: a check that misses it comes again */
	unsigned members, waiting, meeting;
};

struct mig_barrier *mig_barrier_new(void)
{
	struct mig_barrier *b = (struct mig_barrier *)calloc(1, sizeof *b);
	pthread_condattr_t monotonic;
	if (!b)
		return NULL;
	pthread_mutex_init(&b->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&b->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return b;
}

static void mig_member(struct mig_barrier *b, unsigned by)
{
	pthread_mutex_lock(&b->lock);
	b->members += by;
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->lock);
}

void mig_barrier_join(struct mig_barrier *b) { mig_member(b, 1); }

void mig_barrier_leave(struct mig_barrier *b) { mig_member(b, -1u); }

void mig_barrier_check(struct mig_barrier *b)
{
	unsigned meeting;
	if (!__atomic_load_n(&b->closed, __ATOMIC_ACQUIRE))
		return;
	pthread_mutex_lock(&b->lock);
	if (b->closed) {
		b->waiting++;
		pthread_cond_broadcast(&b->changed);
		/* Who is late to leave one meeting does not wait in the next. */
		for (meeting = b->meeting; b->closed && b->meeting == meeting;)
			pthread_cond_wait(&b->changed, &b->lock);
	}
	pthread_mutex_unlock(&b->lock);
}

int mig_barrier_close(struct mig_barrier *b, unsigned ms)
{
	struct timespec until;
	int late = 0;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	if ((until.tv_nsec += (long)(ms % 1000) * 1000000) >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&b->lock);
	if (!b->closed) {
		b->waiting = 0;
		b->meeting++;
		__atomic_store_n(&b->closed, 1, __ATOMIC_RELEASE);
	}
	while (b->waiting < b->members && !late)
		late = pthread_cond_timedwait(&b->changed, &b->lock, &until) == ETIMEDOUT && b->waiting < b->members;
	pthread_mutex_unlock(&b->lock);
	if (late)
		mig_barrier_open(b);
	return late ? -1 : 0;
}

void mig_barrier_open(struct mig_barrier *b)
{
	pthread_mutex_lock(&b->lock);
	__atomic_store_n(&b->closed, 0, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->lock);
}

#ifdef __cplusplus
}
#endif
#endif /* MIG_AGENT_IMPLEMENTATION */
