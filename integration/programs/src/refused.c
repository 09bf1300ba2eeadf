/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

REFUSED(refused_io_uring, ANYONE, "io_uring", "an io_uring")
{
	struct io_uring_params parameters = {0};
	long fd = syscall(SYS_io_uring_setup, 4, &parameters);
	/* A kernel or a seccomp filter without it: then an inaccessible kind is
	 * there all the same, so that the program has something to be refused for. */
	if (fd == -1)
		fd = SYS(open("/dev/pts/ptmx", O_RDWR));
	ready();
}

REFUSED(refused_userfaultfd, ALL_CAPS | ROOT, "userfaultfd", "memory that the program serves itself")
{
	long fd = SYS(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
	struct uffdio_api api = {.api = UFFD_API};
	CHECK(ioctl(fd, UFFDIO_API, &api) == 0);
	ready();
}

REFUSED(refused_perf, ALL_CAPS | ROOT, "perf", "a performance counter")
{
	struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_TASK_CLOCK};
	SYS(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0));
	ready();
}

REFUSED(refused_bpf, ALL_CAPS | ROOT, "BPF", "a BPF map")
{
	union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
	SYS(syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes));
	ready();
}

REFUSED(refused_namespace, ANYONE, "namespace", "a descriptor of a namespace")
{
	SYS(open("/proc/self/ns/net", O_RDONLY));
	ready();
}

REFUSED(refused_inotify_removed, ANYONE, "is not found by any name", "a watched file that was removed and is still open")
{
	int file = SYS(open("/tmp/removed", O_RDWR | O_CREAT, 0600)), fd = SYS(inotify_init1(IN_NONBLOCK));
	SYS(inotify_add_watch(fd, "/tmp/removed", IN_MODIFY));
	CHECK(unlink("/tmp/removed") == 0);
	ready();
	char event[512];
	CHECK(write(file, "x", 1) == 1 && read(fd, event, sizeof event) > 0);
}

REFUSED(refused_fanotify_decides, ALL_CAPS | ROOT, "it decides who may open or read files", "a fanotify group that is asked before a file is executed")
{
	int fd = SYS(fanotify_init(FAN_CLASS_CONTENT | FAN_NONBLOCK, O_RDONLY)), file = SYS(open("/tmp/asked", O_RDWR | O_CREAT, 0700));
	CHECK(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_EXEC_PERM, AT_FDCWD, "/tmp/asked") == 0);
	ready();
	char event[512];
	CHECK(write(file, "x", 1) == 1 && read(fd, event, sizeof event) == -1 && errno == EAGAIN);
}

REFUSED(refused_fanotify_limitless, ALL_CAPS | ROOT, "has no limit", "unread events of a fanotify group that knows no overflow")
{
	int fd = SYS(fanotify_init(FAN_CLASS_NOTIF | FAN_UNLIMITED_QUEUE, O_RDONLY)), file = SYS(open("/tmp/listened", O_RDWR | O_CREAT, 0600));
	CHECK(fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, "/tmp/listened") == 0);
	CHECK(write(file, "x", 1) == 1);
	ready();
	struct fanotify_event_metadata e;
	CHECK(read(fd, &e, sizeof e) == sizeof e && e.mask == FAN_MODIFY);
}

REFUSED(refused_fanotify_outside, ALL_CAPS | ROOT, "is not found by any name in the container", "a mark on a mount that nothing leads to any more")
{
	CHECK(mkdir("/mnt", 0700) == 0 && mount("tmpfs", "/mnt", "tmpfs", 0, NULL) == 0);
	int fd = SYS(fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY)), dir = SYS(open("/mnt", O_PATH));
	CHECK(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_MODIFY, dir, ".") == 0);
	CHECK(close(dir) == 0 && mount("tmpfs", "/mnt", "tmpfs", 0, NULL) == 0);
	ready();
	struct fanotify_event_metadata e;
	CHECK(read(fd, &e, sizeof e) == -1 && errno == EAGAIN);
}

/* Processes and threads that share what a fork or a clone does not, in ways that no copy of theirs can. */
static int told[2];

static int waits_in_pipe(void *unused)
{
	char c;
	while (read(told[0], &c, 1) == 1 && c != 'e')
		;
	_exit(unused != NULL);
}

REFUSED(refused_vfork, ANYONE, "waits in vfork(2)", "a thread's vfork child that neither executes a program nor ends")
{
	CHECK(pipe(told) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		static char stack[64 << 10] __attribute__((aligned(16)));
		_exit(child_exits(SYS(clone(waits_in_pipe, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL))));
	}
	struct timespec three = {3, 0};
	nanosleep(&three, NULL); /* what has just begun is waited for */
	ready();
	CHECK(write(told[1], "e", 1) == 1);
	CHECK(child_exits(child) == 0);
}
