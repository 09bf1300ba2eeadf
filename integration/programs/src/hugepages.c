/* SPDX-License-Identifier: Apache-2.0 */

/* Memory of huge pages. The harness sees to it that there are enough. */

#include "programs.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 0x0004U
#endif
#ifndef MFD_ALLOW_SEALING
#define MFD_ALLOW_SEALING 0x0002U
#endif
#define HUGE_2MB (21u << 26)
#define HUGE (2ul << 20)

static const int RW = PROT_READ | PROT_WRITE;

static char *huge(size_t pages, int flags)
{
	return SYS(mmap(NULL, pages * HUGE, RW, flags | MAP_ANONYMOUS | MAP_HUGETLB | HUGE_2MB, -1, 0));
}

/* shown is the number in a line of the mapping that begins at an address, in
 * /proc/self/smaps: its size or presence in kB, or whether a flag is there. */
static long shown(const char *at, const char *key, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	CHECK(f != NULL);
	char line[512];
	unsigned long start, end, here = 0;
	long found = -1;
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start;
		if (here != (unsigned long)at || strncmp(line, key, strlen(key)) != 0)
			continue;
		found = flag ? strstr(line, flag) != NULL : strtol(line + strlen(key), NULL, 10);
	}
	fclose(f);
	return found;
}

/* is_huge checks that a mapping has pages of 2 MB, so many of its own or shared. */
static void is_huge(const char *at, long present)
{
	CHECK(shown(at, "KernelPageSize:", NULL) == 2048);
	CHECK(shown(at, "VmFlags:", " ht") == 1);
	CHECK(shown(at, "Private_Hugetlb:", NULL) + shown(at, "Shared_Hugetlb:", NULL) == 2048 * present);
}

PROGRAM(huge_private, HUGE_PAGES, "private huge pages keep their bytes, holes and reservation")
{
	char *p = huge(4, MAP_PRIVATE);
	char *q = huge(2, MAP_PRIVATE | MAP_NORESERVE);
	fill(p, HUGE, 1);
	fill(p + 2 * HUGE, HUGE, 2);
	q[HUGE + 4097] = 3;
	ready();
	is_huge(p, 2);
	is_huge(q, 1);
	CHECK(shown(p, "VmFlags:", " nr ") == 0 && shown(q, "VmFlags:", " nr ") == 1);
	CHECK(filled(p, HUGE, 1) && filled(p + 2 * HUGE, HUGE, 2));
	CHECK(q[HUGE + 4097] == 3 && q[HUGE + 4096] == 0);
	for (size_t i = 0; i < HUGE; i += 4096)
		CHECK(p[HUGE + i] == 0);
	fill(p + 3 * HUGE, HUGE, 4);
	CHECK(filled(p + 3 * HUGE, HUGE, 4) && filled(p, HUGE, 1));
}

PROGRAM(huge_protected, HUGE_PAGES, "huge pages are protected, advised, moved, emptied and unmapped as before")
{
	char *p = huge(3, MAP_PRIVATE);
	fill(p, 3 * HUGE, 5);
	CHECK(mprotect(p + HUGE, HUGE, PROT_NONE) == 0);
	CHECK(mprotect(p + 2 * HUGE, HUGE, PROT_READ) == 0);
	CHECK(madvise(p, HUGE, MADV_DONTDUMP) == 0);
	ready();
	CHECK(shown(p, "VmFlags:", " dd") == 1);
	int ends[2];
	CHECK(pipe(ends) == 0);
	CHECK(write(ends[1], p + HUGE, 1) == -1 && errno == EFAULT);
	CHECK(write(ends[1], "x", 1) == 1 && read(ends[0], p + 2 * HUGE, 1) == -1 && errno == EFAULT);
	CHECK(mprotect(p + HUGE, 2 * HUGE, RW) == 0 && madvise(p, HUGE, MADV_DODUMP) == 0);
	is_huge(p, 1);
	is_huge(p + HUGE, 1);
	is_huge(p + 2 * HUGE, 1);
	CHECK(filled(p, 3 * HUGE, 5));

	CHECK(madvise(p + HUGE, HUGE, MADV_DONTNEED) == 0 && p[HUGE] == 0 && p[2 * HUGE - 1] == 0);
	CHECK(madvise(p + HUGE + 4096, 4096, MADV_DONTNEED) == -1 && errno == EINVAL);
	CHECK(munmap(p + HUGE + 4096, 4096) == -1 && errno == EINVAL);
	CHECK(munmap(p + HUGE, HUGE) == 0);
	char *moved = mremap(p + 2 * HUGE, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + HUGE);
	CHECK(moved == p + HUGE);
	/* what a fill of all three pages holds in the third */
	char *want = malloc(3 * HUGE);
	CHECK(want != NULL);
	fill(want, 3 * HUGE, 5);
	CHECK(memcmp(moved, want + 2 * HUGE, HUGE) == 0 && memcmp(p, want, HUGE) == 0);
}

PROGRAM(huge_shared, HUGE_PAGES, "shared huge pages stay shared between parent and child")
{
	char *p = huge(3, MAP_SHARED);
	fill(p + HUGE, HUGE, 6);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_await(b, 0, 1);
		CHECK(filled(p + HUGE, HUGE, 7));
		fill(p + 2 * HUGE, HUGE, 8);
		_exit(7);
	}
	ready();
	CHECK(filled(p + HUGE, HUGE, 6));
	is_huge(p, 1);
	CHECK(p[0] == 0 && p[HUGE - 1] == 0);
	fill(p + HUGE, HUGE, 7);
	board_post(b, 0);
	CHECK(child_exits(child) == 7);
	CHECK(filled(p + 2 * HUGE, HUGE, 8));
}

PROGRAM(huge_forked, HUGE_PAGES, "private huge pages of parent and child are their own, and shared until they are written")
{
	char *p = huge(3, MAP_PRIVATE);
	fill(p, 2 * HUGE, 9);
	p[5] = 'o';
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		fill(p + HUGE, HUGE, 10);
		board_post(b, 1);
		board_await(b, 0, 1);
		CHECK(shown(p, "KernelPageSize:", NULL) == 2048);
		CHECK(p[5] == 'o' && filled(p + HUGE, HUGE, 10));
		_exit(7);
	}
	board_await(b, 1, 1);
	char *want = malloc(2 * HUGE);
	CHECK(want != NULL);
	fill(want, 2 * HUGE, 9);
	want[5] = 'o';
	CHECK(memcmp(p, want, 2 * HUGE) == 0);
	ready();
	is_huge(p, 2);
	CHECK(memcmp(p, want, 2 * HUGE) == 0);
	/* The first page is still the child's, too: this write must not be seen there. */
	p[5] = 'n';
	board_post(b, 0);
	CHECK(child_exits(child) == 7);
	want[5] = 'n';
	CHECK(memcmp(p, want, 2 * HUGE) == 0);
}

PROGRAM(huge_memfd, HUGE_PAGES, "a memfd of huge pages is the same for its descriptors and mappings")
{
	int fd = SYS(syscall(SYS_memfd_create, "huge", MFD_HUGETLB | HUGE_2MB | MFD_ALLOW_SEALING));
	CHECK(ftruncate(fd, 4 * HUGE) == 0);
	char *p = SYS(mmap(NULL, 4 * HUGE, RW, MAP_SHARED, fd, 0));
	char *part = SYS(mmap(NULL, HUGE, PROT_READ, MAP_SHARED, fd, 2 * HUGE));
	char *own = SYS(mmap(NULL, 2 * HUGE, RW, MAP_PRIVATE, fd, 2 * HUGE));
	fill(p + 2 * HUGE, HUGE, 11);
	fill(own + HUGE, HUGE, 12);
	CHECK(own[0] == p[2 * HUGE]);
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);

	/* One that nobody maps. */
	int quiet = SYS(syscall(SYS_memfd_create, "quiet", MFD_HUGETLB | HUGE_2MB));
	CHECK(ftruncate(quiet, 2 * HUGE) == 0);
	char *once = SYS(mmap(NULL, HUGE, RW, MAP_SHARED, quiet, HUGE));
	fill(once, HUGE, 13);
	CHECK(munmap(once, HUGE) == 0);
	SYS(lseek(quiet, 4096, SEEK_SET));
	ready();

	CHECK(filled(p + 2 * HUGE, HUGE, 11) && filled(part, HUGE, 11) && filled(own + HUGE, HUGE, 12));
	is_huge(p, 1);
	is_huge(part, 1);
	p[2 * HUGE] ^= 1;
	CHECK(part[0] == p[2 * HUGE] && own[0] == p[2 * HUGE]);
	is_huge(own, 2);
	CHECK(p[3 * HUGE] == 0 && p[0] == 0);
	struct stat st;
	CHECK(fstat(fd, &st) == 0 && st.st_size == (off_t)(4 * HUGE) && st.st_blksize == (blksize_t)HUGE);
	CHECK(ftruncate(fd, HUGE) == -1 && errno == EPERM);
	CHECK(fcntl(fd, F_GET_SEALS) == F_SEAL_SHRINK);

	CHECK(fstat(quiet, &st) == 0 && st.st_size == (off_t)(2 * HUGE) && st.st_blksize == (blksize_t)HUGE);
	CHECK(lseek(quiet, 0, SEEK_CUR) == 4096);
	once = SYS(mmap(NULL, 2 * HUGE, RW, MAP_SHARED, quiet, 0));
	CHECK(once[0] == 0 && filled(once + HUGE, HUGE, 13));
	CHECK(ftruncate(quiet, 0) == 0);
}
