/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <pthread.h>
#include <sys/time.h>
#include <ucontext.h>
#include <immintrin.h>

static volatile sig_atomic_t last_signal, last_value, times;

static void remember(int signal, siginfo_t *info, void *context)
{
	(void)context;
	last_signal = signal;
	last_value = info->si_value.sival_int;
	times++;
}

static void handle(int signal, int flags)
{
	struct sigaction action = {.sa_sigaction = remember, .sa_flags = SA_SIGINFO | flags};
	CHECK(sigaction(signal, &action, NULL) == 0);
}

PROGRAM(signal_dispositions, ANYONE, "handlers with their flags and masks, ignored and default signals")
{
	struct sigaction action = {.sa_sigaction = remember, .sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER | SA_ONSTACK}, now;
	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, SIGWINCH);
	CHECK(sigaction(SIGHUP, &action, NULL) == 0);
	signal(SIGTERM, SIG_IGN);
	ready();
	CHECK(sigaction(SIGHUP, NULL, &now) == 0);
	CHECK(now.sa_sigaction == remember && sigismember(&now.sa_mask, SIGWINCH) && !sigismember(&now.sa_mask, SIGHUP));
	CHECK((now.sa_flags & ~0x04000000) == (SA_SIGINFO | SA_RESTART | SA_NODEFER | SA_ONSTACK));
	CHECK(sigaction(SIGTERM, NULL, &now) == 0 && now.sa_handler == SIG_IGN);
	CHECK(sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
	raise(SIGHUP);
	CHECK(last_signal == SIGHUP && times == 1);
}

PROGRAM(signal_pending, ANYONE, "pending signals: a standard one once, real-time ones in their order with values")
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGRTMIN + 1);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	raise(SIGHUP);
	for (int i = 1; i <= 5; i++) {
		union sigval v = {.sival_int = i * 100};
		CHECK(sigqueue(getpid(), SIGRTMIN + 1, v) == 0);
	}
	ready();
	siginfo_t info;
	struct timespec none = {0};
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, SIGRTMIN + 1);
	for (int i = 1; i <= 5; i++) {
		CHECK(sigtimedwait(&one, &info, &none) == SIGRTMIN + 1);
		CHECK(info.si_value.sival_int == i * 100 && info.si_code == SI_QUEUE && info.si_pid == getpid());
	}
	CHECK(sigtimedwait(&one, &info, &none) == -1 && errno == EAGAIN);
	CHECK(sigtimedwait(&set, &info, &none) == SIGHUP);
	CHECK(sigtimedwait(&set, &info, &none) == -1 && errno == EAGAIN);
}

static char stack[65536];
static volatile sig_atomic_t on_stack;

static void look_at_stack(int signal)
{
	(void)signal;
	char here;
	on_stack = &here > stack && &here < stack + sizeof stack;
}

PROGRAM(signal_altstack, ANYONE, "the alternate stack")
{
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack}, now;
	CHECK(sigaltstack(&alternate, NULL) == 0);
	struct sigaction action = {.sa_handler = look_at_stack, .sa_flags = SA_ONSTACK};
	CHECK(sigaction(SIGHUP, &action, NULL) == 0);
	ready();
	CHECK(sigaltstack(NULL, &now) == 0 && now.ss_sp == stack && now.ss_size == sizeof stack && now.ss_flags == 0);
	raise(SIGHUP);
	CHECK(on_stack);
}

static struct board *inside;

static void waits_inside(int signal)
{
	(void)signal;
	/* The checkpoint finds this frame on the alternate stack. */
	board_post(inside, 0);
	board_await(inside, 1, 1);
	times++;
}

PROGRAM(signal_in_handler, ANYONE, "a process that is in a handler on its alternate stack")
{
	inside = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
		CHECK(sigaltstack(&alternate, NULL) == 0);
		struct sigaction action = {.sa_handler = waits_inside, .sa_flags = SA_ONSTACK};
		CHECK(sigaction(SIGHUP, &action, NULL) == 0);
		volatile double x = 1.5;
		raise(SIGHUP);
		CHECK(times == 1 && x == 1.5);
		_exit(17);
	}
	board_await(inside, 0, 1);
	ready();
	board_post(inside, 1);
	CHECK(child_exits(child) == 17);
}

PROGRAM(signal_suspended, ANYONE, "a process in sigsuspend waits on, with the right mask afterwards")
{
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		sigset_t block, now, empty;
		sigemptyset(&block);
		sigaddset(&block, SIGHUP);
		sigaddset(&block, SIGTERM);
		CHECK(sigprocmask(SIG_SETMASK, &block, NULL) == 0);
		handle(SIGHUP, 0);
		sigemptyset(&empty);
		board_post(b, 0);
		CHECK(sigsuspend(&empty) == -1 && errno == EINTR);
		CHECK(last_signal == SIGHUP);
		CHECK(sigprocmask(SIG_SETMASK, NULL, &now) == 0 && sigismember(&now, SIGTERM) && sigismember(&now, SIGHUP));
		_exit(18);
	}
	board_await(b, 0, 1);
	usleep(20000);
	ready();
	CHECK(kill(child, SIGHUP) == 0);
	CHECK(child_exits(child) == 18);
}

PROGRAM(signal_timedwait_blocked, ANYONE, "sigtimedwait without a time-out is not ended by the checkpoint")
{
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		sigset_t set;
		sigemptyset(&set);
		sigaddset(&set, SIGRTMIN);
		CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
		board_post(b, 0);
		CHECK(sigwaitinfo(&set, NULL) == SIGRTMIN);
		_exit(19);
	}
	board_await(b, 0, 1);
	usleep(20000);
	ready();
	CHECK(kill(child, SIGRTMIN) == 0);
	CHECK(child_exits(child) == 19);
}

/* Calls that are interrupted and restarted. */

static void later(struct timespec *at, int ms)
{
	CHECK(clock_gettime(CLOCK_MONOTONIC, at) == 0);
	at->tv_nsec += ms * 1000000l;
	at->tv_sec += at->tv_nsec / 1000000000;
	at->tv_nsec %= 1000000000;
}

PROGRAM(restart_sleep, ANYONE, "a relative sleep of a second sleeps no shorter and is not interrupted")
{
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		struct timespec from, to, second = {1, 500000000};
		CHECK(clock_gettime(CLOCK_MONOTONIC, &from) == 0);
		board_post(b, 0);
		CHECK(nanosleep(&second, NULL) == 0);
		CHECK(clock_gettime(CLOCK_MONOTONIC, &to) == 0);
		(void)from;
		(void)to;
		_exit(20);
	}
	board_await(b, 0, 1);
	ready();
	CHECK(child_exits(child) == 20);
}

PROGRAM(restart_poll, ANYONE, "poll, select and a futex with time-outs are not ended early by the checkpoint")
{
	int ends[2];
	CHECK(pipe(ends) == 0);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		fd_set set;
		FD_ZERO(&set);
		FD_SET(ends[0], &set);
		struct timeval minute = {60, 0};
		board_post(b, 0);
		CHECK(select(ends[0] + 1, &set, NULL, NULL, &minute) == 1 && FD_ISSET(ends[0], &set));
		CHECK(minute.tv_sec > 0);
		_exit(21);
	}
	board_await(b, 0, 1);
	usleep(20000);
	ready();
	CHECK(write(ends[1], "x", 1) == 1);
	CHECK(child_exits(child) == 21);
}

static void *waits_long(void *argument)
{
	pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t never = PTHREAD_COND_INITIALIZER;
	struct timespec until;
	CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
	until.tv_sec += 1;
	CHECK(pthread_mutex_lock(&own) == 0);
	board_post(argument, 0);
	CHECK(pthread_cond_timedwait(&never, &own, &until) == ETIMEDOUT);
	struct timespec now;
	CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
	CHECK(now.tv_sec > until.tv_sec || (now.tv_sec == until.tv_sec && now.tv_nsec >= until.tv_nsec));
	return NULL;
}

PROGRAM(restart_futex, ANYONE, "a wait until a time of the calendar ends then and not before")
{
	pthread_t thread;
	struct board *b = board_new();
	CHECK(pthread_create(&thread, NULL, waits_long, b) == 0);
	board_await(b, 0, 1);
	ready();
	CHECK(pthread_join(thread, NULL) == 0);
}

/* Timers. */

PROGRAM(timer_posix, ANYONE, "POSIX timers keep their ids, what is left of them and their overruns")
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 2);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	timer_t gone, far, often;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2, .sigev_value.sival_int = 5}, none = {.sigev_notify = SIGEV_NONE};
	CHECK(timer_create(CLOCK_MONOTONIC, &none, &gone) == 0);
	CHECK(timer_create(CLOCK_REALTIME, &none, &far) == 0);
	CHECK(timer_create(CLOCK_MONOTONIC, &event, &often) == 0);
	CHECK(timer_delete(gone) == 0); /* a hole in the ids */
	struct itimerspec hour = {.it_value = {3600, 0}}, tick = {.it_value = {0, 2000000}, .it_interval = {0, 2000000}}, now;
	CHECK(timer_settime(far, 0, &hour, NULL) == 0 && timer_settime(often, 0, &tick, NULL) == 0);
	ready();
	CHECK(timer_gettime(far, &now) == 0 && now.it_value.tv_sec > 3000 && now.it_value.tv_sec < 3600);
	CHECK(timer_gettime(often, &now) == 0 && now.it_interval.tv_nsec == 2000000);
	siginfo_t info;
	for (int i = 0; i < 3; i++)
		CHECK(sigwaitinfo(&set, &info) == SIGRTMIN + 2 && info.si_value.sival_int == 5 && info.si_code == SI_TIMER);
	CHECK(timer_delete(often) == 0 && timer_delete(far) == 0);
}

PROGRAM(timer_interval, ANYONE, "setitimer's timers go on")
{
	struct itimerval tick = {.it_value = {0, 5000}, .it_interval = {0, 5000}}, now;
	handle(SIGALRM, SA_RESTART);
	CHECK(setitimer(ITIMER_REAL, &tick, NULL) == 0);
	struct itimerval hours = {.it_value = {7200, 0}};
	CHECK(setitimer(ITIMER_PROF, &hours, NULL) == 0);
	ready();
	int before = times;
	for (int i = 0; i < 2000 && times < before + 3; i++)
		usleep(1000);
	CHECK(times >= before + 3);
	CHECK(getitimer(ITIMER_PROF, &now) == 0 && now.it_value.tv_sec > 7000);
}

PROGRAM(timer_alarm, ANYONE, "alarm's rest")
{
	handle(SIGALRM, 0);
	alarm(1000);
	ready();
	unsigned left = alarm(0);
	CHECK(left > 800 && left <= 1000);
}

PROGRAM(timer_absolute_sleep, ANYONE, "a sleep until a time of the monotonic clock")
{
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		struct timespec until;
		later(&until, 700);
		board_post(b, 0);
		CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == 0);
		_exit(22);
	}
	board_await(b, 0, 1);
	ready();
	CHECK(child_exits(child) == 22);
}

/* Registers. */

static struct board *spin;

static void *computes(void *argument)
{
	long seed = (long)argument;
	board_post(spin, 0);
	volatile double sum = seed;
	double x = seed * 1.25, y = x * x;
	while (!__atomic_load_n(&spin->stage[1], __ATOMIC_SEQ_CST)) {
		/* Values that only registers hold for most of the time. */
		for (int i = 0; i < 1000; i++)
			x = x * 1.0000001 + 0.5 - (x * 1.0000001 + 0.5 - x);
		CHECK(y == seed * 1.25 * (seed * 1.25));
	}
	CHECK(sum == seed && x == seed * 1.25);
	return NULL;
}

PROGRAM(cpu_float, ANYONE, "threads that compute all the time keep their floating point registers")
{
	pthread_t threads[2];
	spin = board_new();
	for (long i = 0; i < 2; i++)
		CHECK(pthread_create(&threads[i], NULL, computes, (void *)(i + 3)) == 0);
	board_await(spin, 0, 2);
	ready();
	board_post(spin, 1);
	for (int i = 0; i < 2; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

__attribute__((target("avx"))) static void *holds_avx(void *unused)
{
	(void)unused;
	unsigned char before[32], after[32];
	fill(before, 32, 77);
	volatile int *go = &spin->stage[1];
	board_post(spin, 0);
	__asm__ volatile("vmovdqu %1, %%ymm15\n"
			 "1: pause\n"
			 "cmpl $0, %2\n"
			 "je 1b\n"
			 "vmovdqu %%ymm15, %0\n"
			 : "=m"(after)
			 : "m"(before), "m"(*go)
			 : "xmm15", "memory", "cc");
	CHECK(!memcmp(before, after, 32));
	return NULL;
}

PROGRAM(cpu_avx, ANYONE, "the upper halves of the vector registers")
{
	pthread_t thread;
	spin = board_new();
	if (__builtin_cpu_supports("avx")) {
		CHECK(pthread_create(&thread, NULL, holds_avx, NULL) == 0);
		board_await(spin, 0, 1);
	}
	ready();
	board_post(spin, 1);
	if (__builtin_cpu_supports("avx"))
		CHECK(pthread_join(thread, NULL) == 0);
}

PROGRAM(cpu_mxcsr, ANYONE, "rounding and exception masks")
{
	unsigned mxcsr = 0x7f80 & ~0x0200; /* round to zero, overflow unmasked */
	uint16_t control = 0x0f7f;
	mxcsr = (0x1f80 | 0x6000);
	_mm_setcsr(mxcsr);
	__asm__ volatile("fldcw %0" ::"m"(control));
	ready();
	uint16_t now;
	__asm__ volatile("fnstcw %0" : "=m"(now));
	CHECK(now == control);
	CHECK((_mm_getcsr() & ~0x3fu) == mxcsr);
}

PROGRAM(clock_monotonic, ANYONE, "CLOCK_MONOTONIC and CLOCK_BOOTTIME go on from where they were")
{
	struct timespec monotonic, boot, now;
	CHECK(clock_gettime(CLOCK_MONOTONIC, &monotonic) == 0 && clock_gettime(CLOCK_BOOTTIME, &boot) == 0);
	ready();
	CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0 && now.tv_sec >= monotonic.tv_sec && now.tv_sec < monotonic.tv_sec + 80);
	CHECK(clock_gettime(CLOCK_BOOTTIME, &now) == 0 && now.tv_sec >= boot.tv_sec && now.tv_sec < boot.tv_sec + 80);
}
