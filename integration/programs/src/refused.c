/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

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

REFUSED(refused_inotify, ANYONE, "inotify", "files that the program watches")
{
	int fd = SYS(inotify_init1(IN_NONBLOCK));
	SYS(inotify_add_watch(fd, "/tmp", IN_CREATE));
	ready();
	char event[512];
	CHECK(mkdir("/tmp/watched", 0700) == 0);
	CHECK(read(fd, event, sizeof event) > 0);
}
