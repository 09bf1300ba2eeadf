/* SPDX-License-Identifier: Apache-2.0 */

/* fanotify(7): groups that are told of what happens to files. */
#include "programs.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>

/* shown keeps what fdinfo says of a group and of its marks, but for numbers of
 * files, mounts and devices, which are others in a copy. */
struct shown {
	char line[16][128];
	int n;
};

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

static struct shown shown(int fd)
{
	struct shown s = {.n = 0};
	char name[64], line[512];
	snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
	FILE *f = fopen(name, "r");
	CHECK(f != NULL);
	while (fgets(line, sizeof line, f)) {
		char *what = strstr(line, "mflags:"), *handle = strstr(line, " fhandle-bytes");
		if (strncmp(line, "fanotify ", 9) != 0)
			continue;
		if (handle)
			*handle = 0;
		CHECK(s.n < 16);
		/* The first letters tell a file (ino), a mount (mnt) and a file system. */
		snprintf(s.line[s.n++], sizeof s.line[0], "%.12s %.100s", what ? line : "group", what ? what : line);
	}
	CHECK(fclose(f) == 0);
	qsort(s.line, s.n, sizeof s.line[0], by_text);
	return s;
}

static void shows(int fd, const struct shown *before)
{
	struct shown now = shown(fd);
	CHECK(now.n == before->n);
	for (int i = 0; i < now.n; i++)
		if (strcmp(now.line[i], before->line[i]) != 0)
			fail("%s, was %s", now.line[i], before->line[i]);
}

/* event is one event with what is told of its file. */
struct event {
	struct fanotify_event_metadata meta;
	char rest[512];
};

static struct event next(int fd, uint64_t mask)
{
	struct event e;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (poll(&p, 1, 5000) != 1)
		fail("no event %#lx", (unsigned long)mask);
	ssize_t n = SYS(read(fd, &e, sizeof e));
	CHECK(n >= (ssize_t)sizeof e.meta && e.meta.event_len == n && e.meta.vers == FANOTIFY_METADATA_VERSION);
	if (e.meta.mask != mask)
		fail("event %#lx, want %#lx", (unsigned long)e.meta.mask, (unsigned long)mask);
	return e;
}

static void nothing(int fd)
{
	struct fanotify_event_metadata *e;
	char b[4096], at[256] = "", name[64];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (poll(&p, 1, 0) == 0)
		return;
	SYS(read(fd, b, sizeof b));
	e = (void *)b;
	snprintf(name, sizeof name, "/proc/self/fd/%d", e->fd);
	if (readlink(name, at, sizeof at - 1) < 0)
		at[0] = 0;
	fail("an event %#lx of process %d, %s, where there should be none", (unsigned long)e->mask, e->pid, at);
}

/* is checks the file that an event tells first, by its handle, and the name there. */
static void is(const struct event *e, const char *path, const char *name)
{
	const struct fanotify_event_info_fid *info = (const void *)e->rest;
	const struct file_handle *told = (const void *)info->handle;
	struct {
		struct file_handle h;
		char room[MAX_HANDLE_SZ];
	} want = {.h.handle_bytes = MAX_HANDLE_SZ};
	int mount;
	CHECK(name_to_handle_at(AT_FDCWD, path, &want.h, &mount, 0) == 0);
	CHECK(told->handle_bytes == want.h.handle_bytes && told->handle_type == want.h.handle_type);
	CHECK(memcmp(told->f_handle, want.h.f_handle, told->handle_bytes) == 0);
	if (name)
		CHECK(!strcmp((const char *)told->f_handle + told->handle_bytes, name));
}

static void marks(int fd, unsigned flags, uint64_t mask, const char *path)
{
	if (fanotify_mark(fd, FAN_MARK_ADD | flags, mask, AT_FDCWD, path) != 0)
		fail("mark %s: %s", path, strerror(errno));
}

static void touch(const char *path) { CHECK(close(SYS(open(path, O_RDWR | O_CREAT, 0600))) == 0); }

/* in_child does something in another process: nobody else's is merged with it. */
#define in_child(does)                       \
	({                                   \
		pid_t child_ = SYS(fork());  \
		if (child_ == 0) {           \
			does;                \
			_exit(0);            \
		}                            \
		CHECK(child_exits(child_) == 0); \
		child_;                      \
	})

PROGRAM(fanotify_files, ANYONE, "groups without privileges: marked files and directories, ignored events, names; epoll and a child that shares one")
{
	CHECK(mkdir("/tmp/dir", 0700) == 0 && mkdir("/tmp/dir/sub", 0700) == 0);
	touch("/tmp/dir/file");
	touch("/tmp/alone");
	int ids = SYS(fanotify_init(FAN_REPORT_FID | FAN_NONBLOCK | FAN_CLOEXEC, O_RDWR | O_NOATIME));
	int names = SYS(fanotify_init(FAN_REPORT_DFID_NAME, O_RDONLY)), epoll = SYS(epoll_create1(0)), kept = SYS(dup(names));
	struct epoll_event ready_event = {.events = EPOLLIN, .data.u32 = 5};
	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, names, &ready_event) == 0);
	marks(ids, 0, FAN_MODIFY | FAN_ONDIR | FAN_EVENT_ON_CHILD, "/tmp/dir");
	marks(ids, FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_MODIFY, "/tmp/dir/file");
	marks(ids, FAN_MARK_EVICTABLE, FAN_ATTRIB, "/tmp/alone");
	marks(names, 0, FAN_CREATE | FAN_DELETE | FAN_ONDIR, "/tmp/dir");
	marks(names, FAN_MARK_IGNORE_SURV, FAN_DELETE, "/tmp/dir");
	marks(names, 0, FAN_CLOSE_WRITE, "/tmp/dir/file");
	CHECK(rename("/tmp/dir/file", "/tmp/dir/sub/file") == 0 && rename("/tmp/dir/sub", "/tmp/dir/deep") == 0);
	struct shown of_ids = shown(ids), of_names = shown(names);
	CHECK(of_ids.n == 4 && of_names.n == 3);
	struct board *b = board_new();
	pid_t sharer = SYS(fork());
	if (sharer == 0) {
		board_await(b, 0, 1);
		struct event e = next(kept, FAN_CREATE | FAN_ONDIR);
		is(&e, "/tmp/dir", "new");
		CHECK(e.meta.fd == FAN_NOFD && e.meta.pid == 0); /* a parent is somebody else */
		_exit(6);
	}
	ready();
	shows(ids, &of_ids);
	shows(names, &of_names);
	CHECK(fcntl(ids, F_GETFL) & O_NONBLOCK && !(fcntl(kept, F_GETFL) & O_NONBLOCK));
	CHECK(fcntl(ids, F_GETFD) == FD_CLOEXEC && fcntl(names, F_GETFD) == 0);
	nothing(ids);
	CHECK(epoll_wait(epoll, &ready_event, 1, 0) == 0);

	CHECK(mkdir("/tmp/dir/new", 0700) == 0 && epoll_wait(epoll, &ready_event, 1, 5000) == 1 && ready_event.data.u32 == 5);
	board_post(b, 0);
	CHECK(child_exits(sharer) == 6);
	CHECK(rmdir("/tmp/dir/new") == 0); /* an ignored FAN_DELETE is not of directories */
	struct event e = next(names, FAN_DELETE | FAN_ONDIR);
	is(&e, "/tmp/dir", "new");
	CHECK(e.meta.pid == getpid());
	touch("/tmp/dir/x");
	e = next(names, FAN_CREATE);
	is(&e, "/tmp/dir", "x");
	CHECK(unlink("/tmp/dir/x") == 0);
	nothing(names);

	touch("/tmp/dir/y");
	is((e = next(names, FAN_CREATE), &e), "/tmp/dir", "y");
	nothing(ids);
	CHECK(truncate("/tmp/dir/y", 1) == 0 && truncate("/tmp/dir/deep/file", 1) == 0);
	is((e = next(ids, FAN_MODIFY), &e), "/tmp/dir/y", NULL);
	nothing(ids);
	in_child(CHECK(chmod("/tmp/alone", 0400) == 0));
	is((e = next(ids, FAN_ATTRIB), &e), "/tmp/alone", NULL);
	CHECK(e.meta.pid == 0);
	touch("/tmp/dir/deep/file");
	is((e = next(names, FAN_CLOSE_WRITE), &e), "/tmp/dir/deep", "file");
	nothing(ids);
	nothing(names);
}

PROGRAM(fanotify_many, ANYONE, "a thousand marked directories, on a tmpfs and in the root")
{
	enum { MANY = 500 };
	int fd = SYS(fanotify_init(FAN_REPORT_FID | FAN_NONBLOCK, O_RDONLY));
	char path[64];
	for (int i = 0; i < 2 * MANY; i++) {
		snprintf(path, sizeof path, "%s/many%d", i % 2 ? "/tmp" : "/dev/shm", i);
		CHECK(mkdir(path, 0700) == 0);
		marks(fd, 0, FAN_CREATE | FAN_ONDIR, path);
	}
	ready();
	nothing(fd);
	for (int i = 0; i < 2 * MANY; i++) {
		char dir[32];
		snprintf(dir, sizeof dir, "%s/many%d", i % 2 ? "/tmp" : "/dev/shm", i);
		snprintf(path, sizeof path, "%s/x", dir);
		CHECK(mkdir(path, 0700) == 0);
		struct event e = next(fd, FAN_CREATE | FAN_ONDIR);
		is(&e, dir, NULL);
	}
	nothing(fd);
}

PROGRAM(fanotify_unread, ANYONE, "of unread events the program is told by an overflow, or they are there (the original)")
{
	int fd = SYS(fanotify_init(FAN_REPORT_DFID_NAME, O_RDONLY));
	marks(fd, 0, FAN_CREATE | FAN_ONDIR, "/tmp");
	CHECK(mkdir("/tmp/early", 0700) == 0);
	ready();
	struct event e;
	CHECK(read(fd, &e, sizeof e) == e.meta.event_len);
	if (e.meta.mask == (FAN_CREATE | FAN_ONDIR))
		is(&e, "/tmp", "early");
	else
		CHECK(e.meta.mask == FAN_Q_OVERFLOW && e.meta.fd == FAN_NOFD);
	nothing(fd);
	CHECK(mkdir("/tmp/late", 0700) == 0);
	e = next(fd, FAN_CREATE | FAN_ONDIR);
	is(&e, "/tmp", "late");
	nothing(fd);
}

/* leads checks where the descriptor of an event leads to, and closes it. */
static void leads(const struct event *e, const char *path)
{
	char name[64], at[256] = {0};
	snprintf(name, sizeof name, "/proc/self/fd/%d", e->meta.fd);
	SYS(readlink(name, at, sizeof at - 1));
	if (strcmp(at, path) != 0)
		fail("an event of %s, not %s", at, path);
	CHECK(close(e->meta.fd) == 0);
}

PROGRAM(fanotify_mounts, ALL_CAPS | ROOT, "groups of a privileged container: marked mounts and file systems, descriptors, process ids, unread events")
{
	int files = SYS(fanotify_init(FAN_CLASS_CONTENT | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS | FAN_NONBLOCK, O_RDWR));
	int whole = SYS(fanotify_init(FAN_REPORT_FID | FAN_REPORT_PIDFD | FAN_NONBLOCK, O_RDONLY));
	int plain = SYS(fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY));
	marks(files, FAN_MARK_MOUNT, FAN_CLOSE_WRITE, "/dev/shm");
	marks(whole, FAN_MARK_FILESYSTEM, FAN_CREATE | FAN_DELETE, "/dev/shm");
	int written = SYS(open("/tmp/file", O_RDWR | O_CREAT, 0600));
	marks(plain, 0, FAN_MODIFY, "/tmp/file");
	CHECK(write(written, "x", 1) == 1);
	struct shown of_files = shown(files), of_whole = shown(whole), of_plain = shown(plain);
	CHECK(of_files.n == 2 && of_whole.n == 2);
	ready();
	shows(files, &of_files);
	shows(whole, &of_whole);
	shows(plain, &of_plain);
	nothing(files);
	nothing(whole);
	struct event e;
	CHECK(read(plain, &e, sizeof e) == sizeof e.meta);
	if (e.meta.mask == FAN_MODIFY)
		leads(&e, "/tmp/file");
	else
		CHECK(e.meta.mask == FAN_Q_OVERFLOW && e.meta.fd == FAN_NOFD);
	nothing(plain);

	touch("/tmp/elsewhere");
	nothing(files);
	pid_t child = in_child(touch("/dev/shm/file"));
	leads((e = next(files, FAN_CLOSE_WRITE), &e), "/dev/shm/file");
	CHECK(e.meta.pid == child);
	e = next(whole, FAN_CREATE);
	CHECK(e.meta.pid == child && e.meta.fd == FAN_NOFD);
	CHECK(write(written, "y", 1) == 1);
	leads((e = next(plain, FAN_MODIFY), &e), "/tmp/file");
	CHECK(e.meta.pid == getpid());
}

/* from_outside takes events of processes that are not the container's, and an
 * overflow: the engine opens directories. */
static void from_outside(int fd)
{
	struct fanotify_event_metadata e;
	while (read(fd, &e, sizeof e) == sizeof e) {
		if (e.pid != 0 && !(e.mask & FAN_Q_OVERFLOW))
			fail("an event %#lx of process %d", (unsigned long)e.mask, e.pid);
		if (e.fd >= 0)
			CHECK(close(e.fd) == 0);
	}
	CHECK(errno == EAGAIN);
}

PROGRAM(fanotify_all, ALL_CAPS | ROOT, "a group that is told of everything in the root is told of nothing that the container has not done")
{
	int all = SYS(fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY));
	touch("/tmp/file");
	marks(all, FAN_MARK_MOUNT, FAN_OPEN | FAN_ACCESS | FAN_MODIFY | FAN_CLOSE | FAN_ONDIR, "/");
	ready();
	from_outside(all);
	touch("/tmp/file");
	leads((struct event[]){next(all, FAN_OPEN | FAN_CLOSE_WRITE)}, "/tmp/file");
	nothing(all);
}
