/* SPDX-License-Identifier: Apache-2.0 */

/* Programs that change their state all the time, also while they are stopped. */

#include "programs.h"

#include <pthread.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static void go_on(long *rounds)
{
	static int said;
	if (!said++)
		announce();
	(*rounds)++;
}

PROGRAM(storm_fork, ANYONE, "forks and waits without a pause")
{
	long rounds = 0;
	while (!asked) {
		pid_t child = SYS(fork());
		if (child == 0)
			_exit(rounds & 63);
		CHECK(child_exits(child) == (rounds & 63));
		go_on(&rounds);
	}
}

PROGRAM(storm_tree, ANYONE, "a child that forks grandchildren which nobody waits for")
{
	long rounds = 0;
	signal(SIGCHLD, SIG_IGN);
	while (!asked) {
		pid_t child = fork();
		if (child == 0) {
			if (fork() == 0)
				usleep(200);
			_exit(0);
		}
		usleep(300);
		go_on(&rounds);
	}
}

PROGRAM(storm_memory, ANYONE, "maps, fills, moves, protects and unmaps")
{
	long rounds = 0;
	char *kept = SYS(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	while (!asked) {
		size_t length = 4096 * (1 + rounds % 50);
		char *p = SYS(mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		fill(p, 4096, rounds);
		char *moved = mremap(p, length, length * 2, MREMAP_MAYMOVE);
		CHECK(moved != MAP_FAILED && filled(moved, 4096, rounds));
		CHECK(mprotect(moved, length, PROT_READ) == 0 && filled(moved, 4096, rounds));
		CHECK(munmap(moved, length * 2) == 0);
		CHECK(madvise(kept, 1 << 20, MADV_DONTNEED) == 0 && kept[rounds % (1 << 20)] == 0);
		fill(kept + 4096 * (rounds % 200), 4096, rounds);
		CHECK(filled(kept + 4096 * (rounds % 200), 4096, rounds));
		go_on(&rounds);
	}
}

/* Enough for mig to copy it ahead of a checkpoint by itself. */
enum { WRITTEN_PAGES = 10240, WRITTEN_AT_ONCE = 32, PAGE_WORDS = 512 };

/* written_page checks that a page was written by turn n, or never. */
static void written_page(const volatile uint64_t *page, uint64_t n)
{
	static const int words[] = {0, 200, PAGE_WORDS - 1};
	for (int i = 0; i < 3; i++)
		if (page[words[i]] != n)
			fail("a page holds turn %lu at word %d, its last one was %lu", (unsigned long)page[words[i]], words[i], (unsigned long)n);
}

PROGRAM(storm_written, ANYONE, "writes to 40 MB in turn, and knows what every page has to hold")
{
	long rounds = 0;
	size_t length = (size_t)WRITTEN_PAGES * PAGE_WORDS * 8;
	volatile uint64_t *all = SYS(mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	uint64_t turn = 0; /* page (turn - 1) % WRITTEN_PAGES was written last */
	while (!asked) {
		for (int i = 0; i < WRITTEN_AT_ONCE; i++) {
			volatile uint64_t *page = all + turn % WRITTEN_PAGES * PAGE_WORDS;
			written_page(page, turn < WRITTEN_PAGES ? 0 : turn + 1 - WRITTEN_PAGES);
			turn++;
			page[0] = page[200] = page[PAGE_WORDS - 1] = turn;
		}
		if (turn > WRITTEN_PAGES) {
			usleep(200);
			go_on(&rounds);
		}
	}
	for (uint64_t n = 0; n < WRITTEN_PAGES; n++, turn++)
		written_page(all + turn % WRITTEN_PAGES * PAGE_WORDS, turn + 1 - WRITTEN_PAGES);
}

enum { DIRECT_BLOCK = 1 << 20, DIRECT_BLOCKS = 16 };

static int direct_file;

/* direct_reader reads blocks past the page cache: the disk writes to memory, and no
 * page table knows. Every word of a block is its number. */
static void *direct_reader(void *argument)
{
	size_t words = DIRECT_BLOCK / 8, block = (size_t)argument * 7;
	uint64_t *buffer = SYS(mmap(NULL, DIRECT_BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (; !asked; block++) {
		memset(buffer, 0xee, DIRECT_BLOCK);
		ssize_t n = pread(direct_file, buffer, DIRECT_BLOCK, block % DIRECT_BLOCKS * DIRECT_BLOCK);
		CHECK(n == DIRECT_BLOCK);
		for (size_t i = 0; i < words; i++)
			if (buffer[i] != block % DIRECT_BLOCKS)
				fail("word %zu of block %zu is %lx", i, block % DIRECT_BLOCKS, (unsigned long)buffer[i]);
	}
	return NULL;
}

PROGRAM(storm_direct, ANYONE, "threads that read a file with O_DIRECT")
{
	uint64_t *block = SYS(mmap(NULL, DIRECT_BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	int file = SYS(open("direct", O_RDWR | O_CREAT, 0600));
	for (uint64_t n = 0; n < DIRECT_BLOCKS; n++) {
		for (size_t i = 0; i < DIRECT_BLOCK / 8; i++)
			block[i] = n;
		CHECK(write(file, block, DIRECT_BLOCK) == DIRECT_BLOCK);
	}
	CHECK(fsync(file) == 0 && close(file) == 0);
	direct_file = SYS(open("direct", O_RDONLY | O_DIRECT));
	pthread_t threads[4];
	for (size_t i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, direct_reader, (void *)i) == 0);
	announce();
	for (size_t i = 0; i < 4; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

static void *short_life(void *argument)
{
	return (void *)((long)argument * 2);
}

PROGRAM(storm_threads, ANYONE, "threads that come and go")
{
	long rounds = 0;
	while (!asked) {
		pthread_t threads[4];
		for (long i = 0; i < 4; i++)
			CHECK(pthread_create(&threads[i], NULL, short_life, (void *)(rounds + i)) == 0);
		for (long i = 0; i < 4; i++) {
			void *value;
			CHECK(pthread_join(threads[i], &value) == 0 && (long)value == (rounds + i) * 2);
		}
		go_on(&rounds);
	}
}

PROGRAM(storm_files, CHANGES_FILES, "opens, writes, renames, removes and closes")
{
	long rounds = 0;
	while (!asked) {
		char name[64], other[64], got[4096], want[4096];
		snprintf(name, sizeof name, "/tmp/storm-%ld", rounds % 7);
		snprintf(other, sizeof other, "/tmp/storm-other-%ld", rounds % 5);
		int fd = SYS(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600));
		fill(want, sizeof want, rounds);
		CHECK(write(fd, want, sizeof want) == sizeof want);
		CHECK(rename(name, other) == 0);
		CHECK(pread(fd, got, sizeof got, 0) == sizeof got && !memcmp(got, want, sizeof got));
		CHECK(unlink(other) == 0);
		CHECK(pread(fd, got, sizeof got, 0) == sizeof got && !memcmp(got, want, sizeof got));
		close(fd);
		go_on(&rounds);
	}
}

PROGRAM(storm_pipes, ANYONE, "a message that two processes pass on and on")
{
	long rounds = 0;
	int there[2], back[2];
	CHECK(pipe(there) == 0 && pipe(back) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		long n;
		close(there[1]);
		while (read(there[0], &n, sizeof n) == sizeof n) {
			n++;
			CHECK(write(back[1], &n, sizeof n) == sizeof n);
		}
		_exit(3);
	}
	close(there[0]);
	close(back[1]);
	while (!asked) {
		long n = rounds;
		CHECK(write(there[1], &n, sizeof n) == sizeof n);
		CHECK(read(back[0], &n, sizeof n) == sizeof n && n == rounds + 1);
		go_on(&rounds);
	}
	close(there[1]);
	CHECK(child_exits(child) == 3);
}

PROGRAM(storm_exec, ANYONE, "a child that executes the program again and again")
{
	long rounds = 0;
	while (!asked) {
		pid_t child = SYS(vfork());
		if (child == 0) {
			close(1);
			close(2);
			execl("/proc/self/exe", "programs", "--nothing", NULL);
			_exit(9);
		}
		CHECK(child_exits(child) == 2); /* usage */
		go_on(&rounds);
	}
}

static volatile sig_atomic_t alarms;

static void count(int signal)
{
	(void)signal;
	alarms++;
}

PROGRAM(storm_signals, ANYONE, "signals between parent and child, and timers")
{
	long rounds = 0;
	struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
	CHECK(sigaction(SIGHUP, &action, NULL) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		for (;;)
			if (kill(1, SIGHUP) == -1)
				_exit(1);
	}
	while (!asked) {
		int before = alarms;
		while (alarms == before && !asked)
			;
		go_on(&rounds);
	}
	CHECK(kill(child, SIGKILL) == 0);
	CHECK(waitpid(child, NULL, 0) == child);
}

PROGRAM(storm_epoll, ANYONE, "descriptors that are watched and forgotten")
{
	long rounds = 0;
	int epoll = SYS(epoll_create1(0));
	while (!asked) {
		int fd = SYS(eventfd(1, EFD_NONBLOCK));
		struct epoll_event e = {.events = EPOLLIN, .data.u64 = rounds};
		CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == 0);
		CHECK(epoll_wait(epoll, &e, 1, 1000) == 1 && e.data.u64 == (uint64_t)rounds);
		CHECK(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL) == 0);
		close(fd);
		go_on(&rounds);
	}
}

static volatile int spawning = 1;

static void *spawns(void *unused)
{
	char *arguments[] = {"/proc/self/exe", "--list", NULL}, *none[] = {NULL};
	posix_spawn_file_actions_t quiet;
	CHECK(posix_spawn_file_actions_init(&quiet) == 0);
	CHECK(posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0) == 0);
	while (spawning) {
		pid_t child;
		CHECK(posix_spawn(&child, "/proc/self/exe", &quiet, NULL, arguments, none) == 0);
		CHECK(child_exits(child) == 0);
	}
	return unused;
}

PROGRAM(storm_spawn, ANYONE, "threads that start programs by vfork, one of them nearly always in the middle of it")
{
	pthread_t threads[3];
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, spawns, NULL) == 0);
	announce();
	while (!asked)
		usleep(1000);
	spawning = 0;
	for (int i = 0; i < 3; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}
