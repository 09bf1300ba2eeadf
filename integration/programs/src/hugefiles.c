/* SPDX-License-Identifier: Apache-2.0 */

/* Files on file systems of huge pages. The harness sees to it that there are enough, and
 * mounts one on /huge. */

#include "programs.h"

#include <sys/mount.h>
#include <sys/statfs.h>

#define HUGE (2ul << 20)
#define HUGETLBFS 0x958458f6 /* HUGETLBFS_MAGIC */

static const int RW = PROT_READ | PROT_WRITE;

static int file(const char *path, size_t pages)
{
	int fd = SYS(open(path, O_RDWR | O_CREAT | O_EXCL, 0640));
	CHECK(ftruncate(fd, pages * HUGE) == 0);
	return fd;
}

static char *map(int fd, size_t page, size_t pages, int flags)
{
	return SYS((char *)mmap(NULL, pages * HUGE, RW, flags, fd, page * HUGE));
}

/* shown is the number in a line of the mapping that begins at an address, in kB. */
static long shown(const char *at, const char *key)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	CHECK(f != NULL);
	char line[512];
	unsigned long start, end, here = 0;
	long found = -1;
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start;
		if (here == (unsigned long)at && strncmp(line, key, strlen(key)) == 0)
			found = strtol(line + strlen(key), NULL, 10);
	}
	fclose(f);
	return found;
}

static void is_huge(const char *at) { CHECK(shown(at, "KernelPageSize:") == 2048); }

static struct stat state_of(const char *path)
{
	struct stat st;
	CHECK(stat(path, &st) == 0);
	return st;
}

PROGRAM(huge_files, NOT_USERNS | HUGE_PAGES | HUGE_MOUNT, "files on a hugetlbfs of the specification: mapped, open, closed")
{
	CHECK(mkdir("/huge/dir", 0750) == 0);
	int fd = file("/huge/dir/mapped", 3);
	char *p = map(fd, 0, 3, MAP_SHARED);
	char *part = map(fd, 2, 1, MAP_SHARED);
	char *own = map(fd, 0, 3, MAP_PRIVATE);
	fill(p, HUGE, 1);
	fill(own + 2 * HUGE, HUGE, 2);
	SYS(lseek(fd, 4096, SEEK_SET));

	/* One that nobody has open, with a second name, and one without a page. */
	int closed = file("/huge/closed", 2);
	char *once = map(closed, 1, 1, MAP_SHARED);
	fill(once, HUGE, 3);
	CHECK(munmap(once, HUGE) == 0 && close(closed) == 0);
	CHECK(link("/huge/closed", "/huge/dir/second") == 0);
	CHECK(close(file("/huge/empty", 2)) == 0 && chmod("/huge/empty", 0604) == 0);
	struct timespec times[2] = {{1000000000, 5}, {1234567890, 987654321}};
	CHECK(utimensat(AT_FDCWD, "/huge/empty", times, 0) == 0);

	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_await(b, 0, 1);
		CHECK(filled(p, HUGE, 4) && filled(part, HUGE, 5));
		p[HUGE + 1] = 'c';
		_exit(7);
	}
	ready();

	struct statfs fs;
	CHECK(statfs("/huge", &fs) == 0 && fs.f_type == HUGETLBFS && fs.f_bsize == (long)HUGE && fs.f_blocks == 8);
	is_huge(p);
	is_huge(part);
	is_huge(own);
	CHECK(filled(p, HUGE, 1) && filled(own, HUGE, 1) && filled(own + 2 * HUGE, HUGE, 2));
	CHECK(part[0] == 0 && p[3 * HUGE - 1] == 0);
	fill(part, HUGE, 5);
	CHECK(filled(p + 2 * HUGE, HUGE, 5) && filled(own + 2 * HUGE, HUGE, 2));
	fill(p, HUGE, 4);
	struct stat st, other;
	CHECK(fstat(fd, &st) == 0 && lseek(fd, 0, SEEK_CUR) == 4096);
	other = state_of("/huge/dir/mapped");
	CHECK(st.st_ino == other.st_ino && st.st_dev == other.st_dev && st.st_size == (off_t)(3 * HUGE) && (st.st_mode & 07777) == 0640 && st.st_uid == getuid());
	char *again = map(SYS(open("/huge/dir/mapped", O_RDWR)), 0, 1, MAP_SHARED);
	CHECK(filled(again, HUGE, 4));
	board_post(b, 0);
	CHECK(child_exits(child) == 7 && p[HUGE + 1] == 'c');

	st = state_of("/huge/closed");
	CHECK(st.st_ino == state_of("/huge/dir/second").st_ino && st.st_nlink == 2);
	CHECK(st.st_blocks == (blkcnt_t)(HUGE / 512));
	once = map(SYS(open("/huge/closed", O_RDWR)), 0, 2, MAP_SHARED);
	CHECK(filled(once + HUGE, HUGE, 3) && once[HUGE - 1] == 0);
	st = state_of("/huge/empty");
	CHECK(st.st_size == (off_t)(2 * HUGE) && st.st_blocks == 0 && (st.st_mode & 07777) == 0604 && st.st_mtim.tv_sec == 1234567890 && st.st_mtim.tv_nsec == 987654321);
	CHECK((state_of("/huge/dir").st_mode & 07777) == 0750 && (state_of("/huge").st_mode & 07777) == 01777);
	CHECK(unlink("/huge/empty") == 0);
}

PROGRAM(huge_files_mounted, ROOT | ALL_CAPS | HUGE_PAGES, "a hugetlbfs that the container has mounted, with its limits and a file")
{
	CHECK(mkdir("/tmp/huge", 0755) == 0 && mount("none", "/tmp/huge", "hugetlbfs", MS_NOSUID | MS_NODEV, "pagesize=2M,size=8M,min_size=4M,nr_inodes=9,mode=0750,uid=5,gid=6") == 0);
	int fd = file("/tmp/huge/file", 2);
	char *p = map(fd, 0, 2, MAP_SHARED);
	fill(p + HUGE, HUGE, 1);
	CHECK(close(fd) == 0);
	ready();
	is_huge(p);
	CHECK(filled(p + HUGE, HUGE, 1) && p[0] == 0);
	struct stat st = state_of("/tmp/huge");
	CHECK((st.st_mode & 07777) == 0750 && st.st_uid == 5 && st.st_gid == 6);
	struct statfs fs;
	CHECK(statfs("/tmp/huge", &fs) == 0 && fs.f_type == HUGETLBFS && fs.f_bsize == (long)HUGE && fs.f_blocks == 4 && fs.f_files == 9);
	fd = SYS(open("/tmp/huge/file", O_RDWR));
	CHECK(ftruncate(fd, 5 * HUGE) == 0);
	/* 4 pages is its limit: the fifth cannot be reserved. */
	CHECK(mmap(NULL, 5 * HUGE, RW, MAP_SHARED, fd, 0) == MAP_FAILED && errno == ENOMEM);
	char *q = map(fd, 0, 4, MAP_SHARED);
	CHECK(filled(q + HUGE, HUGE, 1));
	CHECK(munmap(p, 2 * HUGE) == 0 && munmap(q, 4 * HUGE) == 0 && close(fd) == 0 && umount("/tmp/huge") == 0);
}

REFUSED(huge_file_removed, NOT_USERNS | HUGE_PAGES | HUGE_MOUNT, "it is on hugetlbfs and has no name", "an open file on a hugetlbfs that was removed")
{
	int fd = file("/huge/file", 1);
	CHECK(unlink("/huge/file") == 0);
	ready();
	struct stat st;
	CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0);
}

REFUSED(huge_file_removed_mapped, NOT_USERNS | HUGE_PAGES | HUGE_MOUNT, "it is on hugetlbfs and has no name", "a mapped file on a hugetlbfs that was removed")
{
	int fd = file("/huge/file", 1);
	char *p = map(fd, 0, 1, MAP_SHARED);
	fill(p, HUGE, 1);
	CHECK(unlink("/huge/file") == 0 && close(fd) == 0);
	ready();
	CHECK(filled(p, HUGE, 1));
}
