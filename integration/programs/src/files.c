/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <dirent.h>
#include <sys/file.h>
#include <sys/uio.h>

static void expect(int fd, const char *text)
{
	char got[256];
	ssize_t n = read(fd, got, sizeof got);
	CHECK(n == (ssize_t)strlen(text) && !memcmp(got, text, n));
}

static int make(const char *path, const char *text, int flags)
{
	int fd = SYS(open(path, O_CREAT | O_TRUNC | flags, 0640));
	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	return fd;
}

PROGRAM(file_offset, ANYONE, "an open file's offset and flags")
{
	int fd = make("/tmp/offset", "0123456789", O_RDWR);
	CHECK(lseek(fd, 4, SEEK_SET) == 4);
	int append = SYS(open("/tmp/offset", O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC));
	ready();
	CHECK(lseek(fd, 0, SEEK_CUR) == 4);
	expect(fd, "456789");
	CHECK(fcntl(append, F_GETFL) & O_APPEND && fcntl(append, F_GETFL) & O_NONBLOCK);
	CHECK((fcntl(append, F_GETFL) & O_ACCMODE) == O_WRONLY && fcntl(append, F_GETFD) == FD_CLOEXEC);
	CHECK(write(append, "ab", 2) == 2);
	expect(fd, "ab");
}

PROGRAM(file_dup, ANYONE, "descriptors that share an offset, and two that do not")
{
	int fd = make("/tmp/dup", "abcdefgh", O_RDWR), copy = SYS(dup(fd)), other = SYS(open("/tmp/dup", O_RDONLY));
	CHECK(lseek(fd, 2, SEEK_SET) == 2 && lseek(other, 5, SEEK_SET) == 5);
	ready();
	char c;
	CHECK(read(copy, &c, 1) == 1 && c == 'c');
	CHECK(lseek(fd, 0, SEEK_CUR) == 3 && lseek(other, 0, SEEK_CUR) == 5);
}

PROGRAM(file_shared_with_child, ANYONE, "parent and child share an offset")
{
	int fd = make("/tmp/family", "abcdefgh", O_RDWR);
	CHECK(lseek(fd, 1, SEEK_SET) == 1);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_await(b, 0, 1);
		char c;
		CHECK(read(fd, &c, 1) == 1 && c == 'b');
		_exit(2);
	}
	ready();
	board_post(b, 0);
	CHECK(child_exits(child) == 2);
	CHECK(lseek(fd, 0, SEEK_CUR) == 2);
}

PROGRAM(file_high_descriptor, ANYONE, "descriptors with high numbers and gaps")
{
	int fd = make("/tmp/high", "high", O_RDWR);
	CHECK(dup2(fd, 777) == 777 && dup3(fd, 1023, O_CLOEXEC) == 1023);
	close(fd);
	ready();
	CHECK(lseek(777, 0, SEEK_SET) == 0);
	expect(1023, "high");
	CHECK(fcntl(1023, F_GETFD) == FD_CLOEXEC && fcntl(777, F_GETFD) == 0);
	CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
}

PROGRAM(file_removed, ANYONE, "an open file without a name")
{
	int fd = make("/tmp/removed", "still here", O_RDWR);
	CHECK(unlink("/tmp/removed") == 0);
	struct stat was, is;
	CHECK(fchmod(fd, 0604) == 0 && fstat(fd, &was) == 0);
	ready();
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	expect(fd, "still here");
	CHECK(fstat(fd, &is) == 0 && is.st_nlink == 0 && is.st_mode == was.st_mode && is.st_size == was.st_size);
	CHECK(access("/tmp/removed", F_OK) == -1);
	CHECK(write(fd, "!", 1) == 1);
}

PROGRAM(file_removed_sparse, ANYONE, "a large removed file with holes")
{
	int fd = SYS(open("/tmp/sparse", O_RDWR | O_CREAT | O_TRUNC, 0600));
	CHECK(unlink("/tmp/sparse") == 0);
	CHECK(pwrite(fd, "end", 3, 1l << 30) == 3 && pwrite(fd, "begin", 5, 0) == 5);
	ready();
	char got[5];
	struct stat is;
	CHECK(pread(fd, got, 3, 1l << 30) == 3 && !memcmp(got, "end", 3));
	CHECK(pread(fd, got, 5, 0) == 5 && !memcmp(got, "begin", 5));
	CHECK(pread(fd, got, 5, 1 << 20) == 5 && !memcmp(got, "\0\0\0\0\0", 5));
	CHECK(fstat(fd, &is) == 0 && is.st_size == (1l << 30) + 3 && is.st_blocks < 1000);
}

PROGRAM(file_tmpfile, ANYONE, "O_TMPFILE")
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	if (fd == -1) { /* a file system without it */
		ready();
		return;
	}
	CHECK(write(fd, "nameless", 8) == 8);
	ready();
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	expect(fd, "nameless");
}

PROGRAM(file_renamed, ANYONE, "an open file that was renamed")
{
	int fd = make("/tmp/old-name", "moved", O_RDWR);
	CHECK(rename("/tmp/old-name", "/tmp/new-name") == 0);
	ready();
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	expect(fd, "moved");
	CHECK(truncate("/tmp/new-name", 2) == 0 && lseek(fd, 0, SEEK_END) == 2);
}

PROGRAM(file_replaced, ANYONE, "an open file whose name is another's by now")
{
	int fd = make("/tmp/replaced", "old", O_RDWR);
	close(make("/tmp/replacement", "new", O_RDWR));
	CHECK(rename("/tmp/replacement", "/tmp/replaced") == 0);
	ready();
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	expect(fd, "old");
	int other = SYS(open("/tmp/replaced", O_RDONLY));
	expect(other, "new");
}

PROGRAM(file_directory, ANYONE, "an open directory")
{
	CHECK(mkdir("/tmp/directory", 0755) == 0 || errno == EEXIST);
	int directory = SYS(open("/tmp/directory", O_DIRECTORY | O_RDONLY));
	ready();
	int fd = SYS(openat(directory, "inside", O_CREAT | O_RDWR, 0600));
	CHECK(write(fd, "x", 1) == 1 && access("/tmp/directory/inside", R_OK) == 0);
}

PROGRAM(file_path, ANYONE, "O_PATH descriptors")
{
	close(make("/tmp/by-path", "path", O_RDWR));
	int fd = SYS(open("/tmp/by-path", O_PATH));
	ready();
	char name[64];
	CHECK(read(fd, name, 1) == -1 && errno == EBADF);
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	expect(SYS(open(name, O_RDONLY)), "path");
}

PROGRAM(file_devices, ANYONE, "/dev/null, zero, full, urandom")
{
	int null = SYS(open("/dev/null", O_RDWR)), zero = SYS(open("/dev/zero", O_RDONLY)), full = SYS(open("/dev/full", O_WRONLY)), random = SYS(open("/dev/urandom", O_RDONLY));
	ready();
	char c = 1;
	CHECK(write(null, "x", 1) == 1 && read(null, &c, 1) == 0);
	CHECK(read(zero, &c, 1) == 1 && c == 0);
	CHECK(write(full, "x", 1) == -1 && errno == ENOSPC);
	CHECK(read(random, &c, 1) == 1);
}

PROGRAM(file_proc, ANYONE, "files of proc stay open and alive")
{
	int fd = SYS(open("/proc/self/status", O_RDONLY)), up = SYS(open("/proc/uptime", O_RDONLY));
	ready();
	char text[4096];
	ssize_t n = SYS(read(fd, text, sizeof text - 1));
	text[n] = 0;
	CHECK(strstr(text, "Pid:\t1\n"));
	CHECK(read(up, text, sizeof text) > 3);
}

PROGRAM(file_memfd, ANYONE, "a memfd with seals")
{
	int fd = SYS(memfd_create("mig-test", MFD_ALLOW_SEALING | MFD_CLOEXEC));
	CHECK(write(fd, "sealed", 6) == 6);
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0);
	ready();
	CHECK(fcntl(fd, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	expect(fd, "sealed");
	CHECK(pwrite(fd, "x", 1, 0) == -1 && errno == EPERM);
	char name[64], link[64] = {0};
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	CHECK(readlink(name, link, sizeof link - 1) > 0 && strstr(link, "memfd:mig-test"));
}

PROGRAM(lock_flock, ANYONE, "flock: exclusive and shared")
{
	int exclusive = make("/tmp/flock", "x", O_RDWR), shared = make("/tmp/flock2", "x", O_RDWR);
	CHECK(flock(exclusive, LOCK_EX) == 0 && flock(shared, LOCK_SH) == 0);
	ready();
	int other = SYS(open("/tmp/flock", O_RDWR)), reader = SYS(open("/tmp/flock2", O_RDWR));
	CHECK(flock(other, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK);
	CHECK(flock(reader, LOCK_SH | LOCK_NB) == 0);
	CHECK(flock(reader, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK);
	CHECK(flock(exclusive, LOCK_UN) == 0 && flock(other, LOCK_EX | LOCK_NB) == 0);
}

static int locked_by(int fd, short type, off_t start, off_t length)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
	CHECK(fcntl(fd, F_GETLK, &l) == 0);
	return l.l_type == F_UNLCK ? 0 : l.l_pid;
}

PROGRAM(lock_posix, ANYONE, "POSIX locks on ranges belong to their process")
{
	int fd = make("/tmp/posix-lock", "0123456789", O_RDWR);
	struct flock write_lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 3};
	struct flock read_lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 7, .l_len = 0};
	CHECK(fcntl(fd, F_SETLK, &write_lock) == 0 && fcntl(fd, F_SETLK, &read_lock) == 0);
	ready();
	pid_t child = SYS(fork());
	if (child == 0) {
		CHECK(locked_by(fd, F_RDLCK, 3, 1) == 1);
		CHECK(locked_by(fd, F_WRLCK, 8, 1) == 1);
		CHECK(locked_by(fd, F_RDLCK, 8, 1) == 0);
		CHECK(locked_by(fd, F_WRLCK, 0, 2) == 0 && locked_by(fd, F_WRLCK, 5, 2) == 0);
		_exit(0);
	}
	CHECK(child_exits(child) == 0);
}

PROGRAM(lock_ofd, ANYONE, "locks of an open file description")
{
	int fd = make("/tmp/ofd-lock", "0123456789", O_RDWR);
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 4};
	CHECK(fcntl(fd, F_OFD_SETLK, &l) == 0);
	ready();
	int other = SYS(open("/tmp/ofd-lock", O_RDWR));
	l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 1};
	CHECK(fcntl(other, F_OFD_GETLK, &l) == 0 && l.l_type == F_WRLCK && l.l_pid == -1 && l.l_start == 1 && l.l_len == 4);
}

PROGRAM(lock_blocked, ANYONE, "a process that waits for a lock gets it")
{
	int fd = make("/tmp/wait-lock", "x", O_RDWR);
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	CHECK(fcntl(fd, F_SETLK, &l) == 0);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_post(b, 0);
		CHECK(fcntl(fd, F_SETLKW, &l) == 0);
		_exit(14);
	}
	board_await(b, 0, 1);
	usleep(20000);
	ready();
	l.l_type = F_UNLCK;
	CHECK(fcntl(fd, F_SETLK, &l) == 0);
	CHECK(child_exits(child) == 14);
}

PROGRAM(file_linked_elsewhere, ANYONE, "an open file whose first name is gone and that has another")
{
	int fd = make("/tmp/first-name", "linked", O_RDWR);
	CHECK(link("/tmp/first-name", "/tmp/second-name") == 0 && unlink("/tmp/first-name") == 0);
	ready();
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	expect(fd, "linked");
	CHECK(truncate("/tmp/second-name", 3) == 0 && lseek(fd, 0, SEEK_END) == 3);
}

PROGRAM(lease_read, ANYONE, "a lease on a file, which tells of one who opens it")
{
	int fd = make("/tmp/leased", "x", O_RDWR);
	close(fd);
	fd = SYS(open("/tmp/leased", O_RDONLY));
	if (fcntl(fd, F_SETLEASE, F_RDLCK) == -1) { /* a file system without */
		ready();
		return;
	}
	ready();
	CHECK(fcntl(fd, F_GETLEASE) == F_RDLCK);
	signal(SIGIO, SIG_IGN);
	CHECK(open("/tmp/leased", O_WRONLY | O_NONBLOCK) == -1 && errno == EWOULDBLOCK);
}

PROGRAM(file_outside_root, ALL_CAPS | ROOT, "a process in a root of its own, with files open from outside of it, and its parent outside")
{
	char text[8] = {0};
	CHECK(mkdir("/tmp/jail", 0755) == 0 || errno == EEXIST);
	CHECK(mkdir("/tmp/jail/home", 0755) == 0 || errno == EEXIST);
	int fd = SYS(open("/tmp/outside", O_RDWR | O_CREAT, 0600));
	CHECK(write(fd, "outside", 7) == 7);
	int to[2];
	CHECK(pipe(to) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		char c;
		CHECK(chroot("/tmp/jail") == 0 && chdir("/home") == 0);
		int inside = SYS(open("inside", O_RDWR | O_CREAT, 0600));
		CHECK(write(inside, "inside", 6) == 6);
		CHECK(read(to[0], &c, 1) == 1);
		CHECK(pread(fd, text, 7, 0) == 7 && !strcmp(text, "outside"));
		memset(text, 0, sizeof text);
		CHECK(pread(inside, text, 6, 0) == 6 && !strcmp(text, "inside"));
		CHECK(getcwd(text, sizeof text) && !strcmp(text, "/home"));
		CHECK(access("/tmp", F_OK) == -1 && access("/home/inside", F_OK) == 0);
		_exit(0);
	}
	struct stat st;
	while (stat("/tmp/jail/home/inside", &st) == -1 || st.st_size < 6)
		usleep(1000);
	ready();
	CHECK(write(to[1], "x", 1) == 1);
	CHECK(child_exits(child) == 0);
	CHECK(access("/tmp", F_OK) == 0);
}
