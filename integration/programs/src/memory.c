/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#define MB (1 << 20)

static void *area(size_t length, int protection, int flags)
{
	return SYS(mmap(NULL, length, protection, flags, -1, 0));
}

PROGRAM(mem_anon, ANYONE, "private anonymous memory keeps its bytes")
{
	char *p = area(4 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	fill(p, 4 * MB, 1);
	ready();
	CHECK(filled(p, 4 * MB, 1));
	fill(p, 4 * MB, 2);
	CHECK(filled(p, 4 * MB, 2));
}

PROGRAM(mem_untouched, ANYONE, "pages that were never touched are zero and cost nothing")
{
	char *p = area(64 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	p[5 * MB] = 7;
	ready();
	CHECK(p[5 * MB] == 7 && p[6 * MB] == 0 && p[63 * MB] == 0);
}

PROGRAM(mem_readonly, ANYONE, "read-only memory keeps content and protection")
{
	char *p = area(MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	fill(p, MB, 3);
	CHECK(mprotect(p, MB, PROT_READ) == 0);
	ready();
	CHECK(filled(p, MB, 3));
	/* EFAULT: the kernel must not be able to write there either. */
	int ends[2];
	CHECK(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
	CHECK(read(ends[0], p, 1) == -1 && errno == EFAULT);
}

PROGRAM(mem_none, ANYONE, "inaccessible memory keeps content and protection")
{
	char *p = area(MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	fill(p, MB, 4);
	CHECK(mprotect(p, MB, PROT_NONE) == 0);
	ready();
	int ends[2];
	CHECK(pipe(ends) == 0);
	CHECK(write(ends[1], p, 1) == -1 && errno == EFAULT);
	CHECK(mprotect(p, MB, PROT_READ) == 0);
	CHECK(filled(p, MB, 4));
}

PROGRAM(mem_brk, ANYONE, "the heap keeps its bytes and goes on to grow")
{
	char *low = SYS(sbrk(3 * 4096));
	fill(low, 3 * 4096, 5);
	char *end = sbrk(0);
	ready();
	CHECK(sbrk(0) == end);
	CHECK(filled(low, 3 * 4096, 5));
	CHECK(sbrk(MB) == end);
	fill(end, MB, 6);
	CHECK(filled(end, MB, 6) && filled(low, 3 * 4096, 5));
}

static int deep(int n)
{
	volatile char room[4096];
	room[0] = n;
	return n == 0 ? room[0] : deep(n - 1) + room[0] - (char)n;
}

PROGRAM(mem_stack, ANYONE, "the stack goes on to grow")
{
	CHECK(deep(10) == 0);
	ready();
	CHECK(deep(500) == 0);
}

PROGRAM(mem_growsdown, ANYONE, "a mapping that grows downwards still does")
{
	char *gap = area(2 * MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
	CHECK(munmap(gap, 2 * MB) == 0);
	char *p = SYS(mmap(gap + 2 * MB - 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0));
	fill(p, 4096, 7);
	ready();
	CHECK(filled(p, 4096, 7));
	for (char *at = p - 1; at > p - 64 * 1024; at -= 4096)
		*at = 1;
}

PROGRAM(mem_many, ANYONE, "20,000 mappings")
{
	char *p = area(40000 * 4096ul, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
	for (int i = 0; i < 20000; i++) {
		*(int *)(p + i * 8192ul) = i;
		CHECK(mprotect(p + i * 8192ul, 4096, PROT_READ) == 0);
	}
	ready();
	for (int i = 0; i < 20000; i++)
		CHECK(*(int *)(p + i * 8192ul) == i);
}

PROGRAM(mem_file_private, ANYONE, "a private mapping of a file keeps what was written to it")
{
	int fd = SYS(open("/tmp/private", O_RDWR | O_CREAT | O_TRUNC, 0600));
	char page[4096];
	for (int i = 0; i < 16; i++) {
		fill(page, sizeof page, i);
		CHECK(write(fd, page, sizeof page) == sizeof page);
	}
	char *p = SYS(mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	fill(p + 3 * 4096, 4096, 33);
	ready();
	for (int i = 0; i < 16; i++)
		CHECK(filled(p + i * 4096, 4096, i == 3 ? 33 : i));
	CHECK(pread(fd, page, sizeof page, 3 * 4096) == sizeof page && filled(page, 4096, 3));
}

PROGRAM(mem_file_shared, ANYONE, "a shared mapping of a file is the file")
{
	int fd = SYS(open("/tmp/shared", O_RDWR | O_CREAT | O_TRUNC, 0600));
	CHECK(ftruncate(fd, 8 * 4096) == 0);
	char *p = SYS(mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	fill(p, 8 * 4096, 8);
	ready();
	CHECK(filled(p, 8 * 4096, 8));
	p[5] = 'x';
	char c;
	CHECK(pread(fd, &c, 1, 5) == 1 && c == 'x');
	CHECK(pwrite(fd, "y", 1, 4096) == 1 && p[4096] == 'y');
}

PROGRAM(mem_shared_anon, ANYONE, "shared anonymous memory stays shared between parent and child")
{
	int *p = area(MB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_await(b, 0, 1);
		CHECK(p[100] == 42);
		p[101] = 43;
		_exit(7);
	}
	ready();
	p[100] = 42;
	board_post(b, 0);
	CHECK(child_exits(child) == 7);
	CHECK(p[101] == 43);
}

PROGRAM(mem_lock, ROOT, "locked memory stays locked")
{
	char *p = area(MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	fill(p, MB, 9);
	CHECK(mlock(p, MB) == 0);
	ready();
	CHECK(filled(p, MB, 9));
	FILE *f = fopen("/proc/self/status", "r");
	CHECK(f);
	char line[256];
	long locked = 0;
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "VmLck: %ld", &locked) == 1)
			break;
	CHECK(locked == 1024);
}

PROGRAM(mem_advice, ANYONE, "advice on mappings is kept: DONTFORK and WIPEONFORK")
{
	char *dont = area(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	char *gap = area(4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
	char *wipe = area(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	(void)gap;
	*dont = *wipe = 5;
	CHECK(madvise(dont, 4096, MADV_DONTFORK) == 0);
	CHECK(madvise(wipe, 4096, MADV_WIPEONFORK) == 0);
	ready();
	CHECK(*dont == 5 && *wipe == 5);
	pid_t child = SYS(fork());
	if (child == 0) {
		unsigned char present;
		CHECK(mincore(dont, 4096, &present) == -1 && errno == ENOMEM);
		CHECK(*wipe == 0);
		_exit(0);
	}
	CHECK(child_exits(child) == 0);
}

PROGRAM(mem_fork_cow, ANYONE, "memory of parent and child is each one's own")
{
	char *p = area(2 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	fill(p, 2 * MB, 10);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		fill(p + MB, MB, 11);
		board_post(b, 1);
		board_await(b, 0, 1);
		CHECK(filled(p, MB, 10) && filled(p + MB, MB, 11));
		fill(p, MB, 12);
		_exit(3);
	}
	board_await(b, 1, 1);
	ready();
	board_post(b, 0);
	CHECK(child_exits(child) == 3);
	CHECK(filled(p, 2 * MB, 10));
}

PROGRAM(mem_exec_page, ANYONE, "code that was written at run time still runs")
{
	unsigned char code[] = {0xb8, 0x2a, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */
	char *p = area(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	memcpy(p, code, sizeof code);
	CHECK(mprotect(p, 4096, PROT_READ | PROT_EXEC) == 0);
	ready();
	CHECK(((int (*)(void))p)() == 42);
}

PROGRAM(mem_reserved, ANYONE, "eight terabytes of address space of which some pages are in use")
{
	char *p = area(8ul << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
	CHECK(mprotect(p + (1ul << 40), MB, PROT_READ | PROT_WRITE) == 0);
	fill(p + (1ul << 40), MB, 8);
	ready();
	CHECK(filled(p + (1ul << 40), MB, 8));
	CHECK(mprotect(p + (3ul << 40), MB, PROT_READ | PROT_WRITE) == 0);
	fill(p + (3ul << 40), MB, 9);
	CHECK(filled(p + (3ul << 40), MB, 9));
}

/* policy_at is get_mempolicy(2) of the mapping at p; node is set if node 0 is in it. */
static int policy_at(void *p, int *node)
{
	unsigned long nodes[16] = {0};
	int mode = -1;
	CHECK(syscall(SYS_get_mempolicy, &mode, nodes, 1024, p, 2 /* MPOL_F_ADDR */) == 0);
	*node = nodes[0] & 1;
	return mode;
}

PROGRAM(mem_policy, ANYONE, "mappings with memory policies of their own, and a child that has another")
{
	enum { BIND = 2, INTERLEAVE = 3, LOCAL = 4, STATIC = 1 << 15 };
	unsigned long nodes = 1;
	char *p = area(3 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	char *shared = area(MB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	fill(p, 3 * MB, 4);
	CHECK(syscall(SYS_mbind, p + MB, MB, BIND | STATIC, &nodes, 64, 0) == 0);
	CHECK(syscall(SYS_mbind, shared, MB, INTERLEAVE, &nodes, 64, 0) == 0);
	struct board *b = board_new();
	int node;
	pid_t child = SYS(fork());
	if (child == 0) {
		CHECK(syscall(SYS_mbind, p + MB, MB, LOCAL, NULL, 0, 0) == 0);
		board_post(b, 0);
		board_await(b, 1, 1);
		CHECK(policy_at(p + MB, &node) == LOCAL && policy_at(p, &node) == 0 && filled(p, 3 * MB, 4));
		_exit(3);
	}
	board_await(b, 0, 1);
	ready();
	CHECK(policy_at(p, &node) == 0 && policy_at(p + 2 * MB, &node) == 0);
	CHECK(policy_at(p + MB, &node) == (BIND | STATIC) && node);
	CHECK(policy_at(shared, &node) == INTERLEAVE && node);
	CHECK(filled(p, 3 * MB, 4));
	board_post(b, 1);
	CHECK(child_exits(child) == 3);
}
