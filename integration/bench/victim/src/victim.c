// SPDX-License-Identifier: Apache-2.0

/*
 * victim is the program that the benchmark checkpoints. It holds a given
 * amount of memory that does not compress, can prove that the memory is what it
 * was, and watches two clocks: the longest time between two looks at them is
 * the silence that a checkpoint or a restore has cost it, seen from inside.
 *
 *	victim MEGABYTES THREADS DIRTY_MBPS SPIN PROCESSES SHARED EMPTY
 *
 * Of several processes each is driven in the same way: the first has the
 * threads, all have the same amount of data, of their own or, with SHARED, one
 * shared by all. With EMPTY the memory is mapped and not touched: address space
 * without a footprint.
 *
 * It is driven through its own memory, which the benchmark reads and writes
 * with process_vm_readv(2) and process_vm_writev(2): a page at a fixed address
 * holds what it measures and takes commands. No descriptor is involved, so the
 * same program is driven the same way before and after a restore.
 *
 * With SPIN it looks at the clocks without a pause; otherwise every
 * millisecond, to leave the processors to what is measured.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BOARD_ADDRESS ((void *)0x200000000000)
#define DATA_ADDRESS  ((void *)0x210000000000)
#define BOARD_MAGIC   0x6d696762656e6368

enum command { NONE, RESET, VERIFY, RENEW, WAKE };

/* The page at BOARD_ADDRESS. The benchmark has the same layout. */
struct board {
	uint64_t magic;         /* BOARD_MAGIC once everything is ready */
	uint64_t looks;         /* at the clocks */
	uint64_t monotonic_gap; /* the longest, in ns, since RESET */
	uint64_t realtime_gap;
	uint64_t command;       /* written by the benchmark, last */
	uint64_t answered;      /* how many commands were carried out */
	uint64_t result;        /* of the last one */
	uint64_t dirtied;       /* bytes */
	uint64_t threads;       /* how many have answered the last WAKE */
	uint64_t writer_gap;    /* the longest of the dirtying thread, in ns of CLOCK_REALTIME, since RESET */
};

static volatile struct board *board;
static uint64_t *data;
static uint64_t words; /* of data */
static int sharing = MAP_PRIVATE;
static int empty;
static int32_t generation;

static uint64_t now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The word at i: the finaliser of splitmix64, random enough for a compressor. */
static uint64_t word(uint64_t i)
{
	uint64_t z = (i + 1) * 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

#define WORDS_PER_PAGE 512

/* The first word of a page belongs to the dirtying thread: not checked. */
static uint64_t wrong_words(void)
{
	uint64_t wrong = 0;
	for (uint64_t i = 0; i < words; i++)
		if (i % WORDS_PER_PAGE && data[i] != (empty ? 0 : word(i)))
			wrong++;
	return wrong;
}

static void *map(void *at, size_t size, int sharing)
{
	void *p = mmap(at, size, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (p != at)
		_exit(3);
	return p;
}

/* Every thread waits for the next generation, tells of it, and waits again. */
static void *sleeper(void *arg)
{
	(void)arg;
	for (int32_t seen = 0;;) {
		syscall(SYS_futex, &generation, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
		int32_t g = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
		if (g == seen)
			continue;
		seen = g;
		__atomic_add_fetch(&board->threads, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void wake(uint64_t threads)
{
	board->threads = 0;
	__atomic_add_fetch(&generation, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &generation, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
	uint64_t end = now(CLOCK_MONOTONIC) + 5000000000u;
	while (__atomic_load_n(&board->threads, __ATOMIC_ACQUIRE) < threads && now(CLOCK_MONOTONIC) < end)
		usleep(100);
}

/* Writes to one page after the other, at the wanted rate. */
static void *dirty(void *arg)
{
	uint64_t rate = *(uint64_t *)arg << 20, done = 0;
	uint64_t start = now(CLOCK_MONOTONIC), last = now(CLOCK_REALTIME);
	for (;;) {
		uint64_t r = now(CLOCK_REALTIME);
		if (r > last && r - last > board->writer_gap)
			board->writer_gap = r - last;
		last = r;
		uint64_t due = (now(CLOCK_MONOTONIC) - start) / 1000 * rate / 1000000;
		/* After a silence the rate goes on, without catching up. */
		if (due > done + rate / 10)
			start += (due - done) * 1000000 / rate * 1000, due = done;
		for (; done < due; done += 4096)
			data[done / 8 % words / WORDS_PER_PAGE * WORDS_PER_PAGE] = done;
		board->dirtied = done;
		usleep(500);
	}
	return NULL;
}

static void start_threads(uint64_t n, void *(*f)(void *), void *arg)
{
	pthread_attr_t a;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 64 << 10);
	for (uint64_t i = 0; i < n; i++) {
		pthread_t t;
		if (pthread_create(&t, &a, f, arg))
			_exit(4);
	}
}

static void obey(uint64_t threads)
{
	switch (board->command) {
	case NONE:
		return;
	case RESET:
		board->monotonic_gap = board->realtime_gap = board->writer_gap = 0;
		break;
	case VERIFY:
		board->result = wrong_words();
		break;
	case RENEW: /* untouched memory in the place of what is there */
		munmap(data, words * 8);
		map(DATA_ADDRESS, words * 8, sharing);
		break;
	case WAKE:
		wake(threads);
		board->result = board->threads;
		break;
	}
	board->command = NONE;
	board->answered++;
}

static void fill(void)
{
	data = map(DATA_ADDRESS, words * 8, sharing);
	for (uint64_t i = 0; !empty && i < words; i++)
		data[i] = word(i);
}

/* Starts the other processes. Returns whether this is the first. */
static int multiply(uint64_t processes)
{
	for (uint64_t i = 1; i < processes; i++) {
		pid_t child = fork();
		if (child < 0)
			_exit(5);
		if (child > 0)
			continue;
		if (sharing == MAP_PRIVATE) { /* not by copy-on-write either */
			munmap(data, words * 8);
			fill();
		}
		return 0;
	}
	return 1;
}

int main(int argc, char **argv)
{
	if (argc != 8)
		_exit(2);
	uint64_t threads = strtoull(argv[2], NULL, 10), rate = strtoull(argv[3], NULL, 10);
	int spin = atoi(argv[4]);
	words = (strtoull(argv[1], NULL, 10) << 20) / 8;
	if (atoi(argv[6]))
		sharing = MAP_SHARED;
	empty = atoi(argv[7]);

	board = map(BOARD_ADDRESS, 4096, MAP_PRIVATE);
	fill();
	if (!multiply(strtoull(argv[5], NULL, 10)))
		threads = rate = 0;
	start_threads(threads, sleeper, NULL);
	if (rate)
		start_threads(1, dirty, &rate);
	__atomic_store_n(&board->magic, BOARD_MAGIC, __ATOMIC_RELEASE);

	uint64_t m = now(CLOCK_MONOTONIC), r = now(CLOCK_REALTIME);
	for (;;) {
		if (spin != 1)
			usleep(spin ? 20000 : 1000);
		uint64_t m2 = now(CLOCK_MONOTONIC), r2 = now(CLOCK_REALTIME);
		if (m2 > m && m2 - m > board->monotonic_gap)
			board->monotonic_gap = m2 - m;
		if (r2 > r && r2 - r > board->realtime_gap)
			board->realtime_gap = r2 - r;
		board->looks++;
		if (board->command != NONE) {
			obey(threads);
			/* A command's own time is no silence. */
			m2 = now(CLOCK_MONOTONIC), r2 = now(CLOCK_REALTIME);
		}
		m = m2, r = r2;
	}
}
