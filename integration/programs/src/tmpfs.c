/* SPDX-License-Identifier: Apache-2.0 */

/* What lies on file systems that are the container's own: /dev/shm here. */

#include "programs.h"

#include <dirent.h>
#include <sys/xattr.h>

static void put(const char *path, const char *text, mode_t mode)
{
	int fd = SYS(open(path, O_CREAT | O_TRUNC | O_WRONLY, mode));
	CHECK(fchmod(fd, mode) == 0);
	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void holds(const char *path, const char *text, mode_t mode)
{
	char got[256] = {0};
	int fd = SYS(open(path, O_RDONLY));
	struct stat s;
	CHECK(read(fd, got, sizeof got) == (ssize_t)strlen(text) && !strcmp(got, text));
	CHECK(fstat(fd, &s) == 0 && (s.st_mode & 07777) == mode && s.st_uid == getuid());
	close(fd);
}

PROGRAM(tmpfs_tree, ANYONE, "files, directories, links and FIFOs with modes and times")
{
	CHECK(mkdir("/dev/shm/a", 0750) == 0 && mkdir("/dev/shm/a/b", 01777) == 0 && chmod("/dev/shm/a/b", 01777) == 0);
	put("/dev/shm/a/pid", "4711\n", 0644);
	put("/dev/shm/a/secret", "s", 0600);
	CHECK(link("/dev/shm/a/secret", "/dev/shm/a/b/same") == 0);
	CHECK(symlink("../pid", "/dev/shm/a/b/link") == 0);
	CHECK(mkfifo("/dev/shm/a/fifo", 0620) == 0 && chmod("/dev/shm/a/fifo", 0620) == 0);
	struct timespec times[2] = {{1000000000, 5}, {1234567890, 987654321}};
	CHECK(utimensat(AT_FDCWD, "/dev/shm/a/pid", times, 0) == 0);
	CHECK(utimensat(AT_FDCWD, "/dev/shm/a", times, 0) == 0);
	ready();
	struct stat s, same;
	CHECK(stat("/dev/shm/a", &s) == 0 && s.st_mtim.tv_sec == 1234567890 && s.st_mtim.tv_nsec == 987654321 && (s.st_mode & 07777) == 0750);
	holds("/dev/shm/a/pid", "4711\n", 0644);
	CHECK(stat("/dev/shm/a/pid", &s) == 0 && s.st_mtim.tv_sec == 1234567890 && s.st_mtim.tv_nsec == 987654321);
	CHECK(stat("/dev/shm/a/secret", &s) == 0 && stat("/dev/shm/a/b/same", &same) == 0 && s.st_ino == same.st_ino && s.st_nlink == 2);
	holds("/dev/shm/a/b/link", "4711\n", 0644);
	CHECK(stat("/dev/shm/a/b", &s) == 0 && (s.st_mode & 07777) == 01777);
	CHECK(lstat("/dev/shm/a/fifo", &s) == 0 && S_ISFIFO(s.st_mode) && (s.st_mode & 07777) == 0620);
}

PROGRAM(tmpfs_open, ANYONE, "an open file on it is the file with that name")
{
	int fd = SYS(open("/dev/shm/open", O_RDWR | O_CREAT, 0600));
	CHECK(write(fd, "abc", 3) == 3);
	ready();
	struct stat by_fd, by_name;
	CHECK(fstat(fd, &by_fd) == 0 && stat("/dev/shm/open", &by_name) == 0 && by_fd.st_ino == by_name.st_ino);
	CHECK(lseek(fd, 0, SEEK_CUR) == 3 && write(fd, "d", 1) == 1);
	holds("/dev/shm/open", "abcd", 0600);
}

PROGRAM(tmpfs_sparse, ANYONE, "a file with holes stays one")
{
	int fd = SYS(open("/dev/shm/sparse", O_RDWR | O_CREAT, 0600));
	CHECK(pwrite(fd, "x", 1, 30 << 20) == 1);
	close(fd);
	ready();
	struct stat s;
	char c;
	CHECK(stat("/dev/shm/sparse", &s) == 0 && s.st_size == (30 << 20) + 1 && s.st_blocks < 100);
	CHECK(pread(SYS(open("/dev/shm/sparse", O_RDONLY)), &c, 1, 30 << 20) == 1 && c == 'x');
}

PROGRAM(tmpfs_many, ANYONE, "2,000 files in ten directories")
{
	char path[64], text[32];
	for (int d = 0; d < 10; d++) {
		snprintf(path, sizeof path, "/dev/shm/d%d", d);
		CHECK(mkdir(path, 0755) == 0);
		for (int f = 0; f < 200; f++) {
			snprintf(path, sizeof path, "/dev/shm/d%d/f%d", d, f);
			snprintf(text, sizeof text, "%d of %d", f, d);
			put(path, text, 0644);
		}
	}
	ready();
	for (int d = 0; d < 10; d++)
		for (int f = 0; f < 200; f++) {
			snprintf(path, sizeof path, "/dev/shm/d%d/f%d", d, f);
			snprintf(text, sizeof text, "%d of %d", f, d);
			holds(path, text, 0644);
		}
}

PROGRAM(tmpfs_attributes, ROOT, "extended attributes")
{
	put("/dev/shm/attributes", "x", 0600);
	if (setxattr("/dev/shm/attributes", "user.mig", "value", 5, 0) == -1) {
		CHECK(errno == ENOTSUP);
		ready();
		return;
	}
	ready();
	char got[16];
	CHECK(getxattr("/dev/shm/attributes", "user.mig", got, sizeof got) == 5 && !memcmp(got, "value", 5));
}
