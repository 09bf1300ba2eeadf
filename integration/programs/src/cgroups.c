/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>

#define AT "/sys/fs/cgroup/"

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	if (fd == -1 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		fail("write %s to %s: errno %d, %s", text, path, errno, strerror(errno));
	close(fd);
}

static void put_id(const char *path, pid_t id)
{
	char text[16];
	snprintf(text, sizeof text, "%d", id);
	put(path, text);
}

static char *get(const char *path)
{
	static char text[65536];
	int fd = open(path, O_RDONLY);
	ssize_t n = fd == -1 ? -1 : read(fd, text, sizeof text - 1);
	if (n < 0)
		fail("read %s: errno %d, %s", path, errno, strerror(errno));
	close(fd);
	text[n] = 0;
	if (n > 0 && text[n - 1] == '\n')
		text[n - 1] = 0;
	return text;
}

static void want(const char *path, const char *text)
{
	char *is = get(path);
	if (strcmp(is, text))
		fail("%s is \"%s\", want \"%s\"", path, is, text);
}

static void want_id(const char *path, pid_t id)
{
	char text[16];
	snprintf(text, sizeof text, "%d", id);
	want(path, text);
}

static void make(const char *path)
{
	if (mkdir(path, 0755))
		fail("mkdir %s: errno %d, %s", path, errno, strerror(errno));
}

static void want_owner(const char *path, uid_t uid, gid_t gid, mode_t mode)
{
	struct stat st;
	CHECK(stat(path, &st) == 0);
	if (st.st_uid != uid || st.st_gid != gid || (st.st_mode & 0777) != mode)
		fail("%s is %d:%d's, %o", path, st.st_uid, st.st_gid, st.st_mode & 0777);
}

static pid_t sleeper(void)
{
	pid_t pid = SYS(fork());
	while (pid == 0)
		pause();
	return pid;
}

PROGRAM(cgroup_settings, ROOT | ALL_CAPS | CGROUPS, "cgroups of version 1 below the container's own: limits, names, levels")
{
	make(AT "pids/a b");
	make(AT "pids/a b/c");
	put(AT "pids/a b/pids.max", "20");
	put(AT "pids/a b/c/pids.max", "3");
	make(AT "memory/m");
	put(AT "memory/m/memory.limit_in_bytes", "67108864");
	put(AT "memory/m/memory.swappiness", "11");
	put(AT "memory/m/memory.oom_control", "1");
	make(AT "cpu/q");
	put(AT "cpu/q/cpu.shares", "77");
	put(AT "cpu/q/cpu.cfs_period_us", "50000");
	put(AT "cpu/q/cpu.cfs_quota_us", "25000");
	make(AT "cpu/idle");
	put(AT "cpu/idle/cpu.idle", "1");
	make(AT "cpuset/one");
	put(AT "cpuset/one/cpuset.cpus", "0");
	put(AT "cpuset/one/cpuset.mems", "0");
	make(AT "devices/d");
	put(AT "devices/d/devices.deny", "a");
	put(AT "devices/d/devices.allow", "c 1:3 rw");
	make(AT "devices/d/below");
	make(AT "systemd/init.scope");
	make(AT "systemd/init.scope/x");
	put(AT "systemd/init.scope/notify_on_release", "1");
	ready();
	want(AT "pids/a b/pids.max", "20");
	want(AT "pids/a b/c/pids.max", "3");
	want(AT "memory/m/memory.limit_in_bytes", "67108864");
	want(AT "memory/m/memory.swappiness", "11");
	CHECK(!strncmp(get(AT "memory/m/memory.oom_control"), "oom_kill_disable 1\n", 19));
	want(AT "cpu/q/cpu.shares", "77");
	want(AT "cpu/q/cpu.cfs_period_us", "50000");
	want(AT "cpu/q/cpu.cfs_quota_us", "25000");
	want(AT "cpu/idle/cpu.idle", "1");
	want(AT "cpu/idle/cpu.cfs_quota_us", "-1");
	want(AT "cpuset/one/cpuset.cpus", "0");
	want(AT "cpuset/one/cpuset.mems", "0");
	want(AT "devices/d/devices.list", "c 1:3 rw");
	want(AT "devices/d/below/devices.list", "c 1:3 rw");
	CHECK(access(AT "systemd/init.scope/x", F_OK) == 0);
	want(AT "systemd/init.scope/notify_on_release", "1");
	want(AT "systemd/init.scope/x/notify_on_release", "0");
}

PROGRAM(cgroup_members, ROOT | CGROUPS | CHANGES_FILES, "processes in cgroups of version 1, with a limit that counts them")
{
	make(AT "pids/all");
	make(AT "pids/all/limited");
	make(AT "freezer/all");
	make(AT "cpuset/all");
	put(AT "cpuset/all/cpuset.cpus", "0");
	put(AT "cpuset/all/cpuset.mems", "0");
	put_id(AT "pids/all/cgroup.procs", getpid());
	put_id(AT "freezer/all/cgroup.procs", getpid());
	pid_t child = sleeper();
	put_id(AT "pids/all/limited/cgroup.procs", child);
	put_id(AT "cpuset/all/cgroup.procs", child);
	put(AT "pids/all/pids.max", "2");
	ready();
	char both[32];
	snprintf(both, sizeof both, "%d\n%d", getpid(), child);
	want(AT "freezer/all/cgroup.procs", both);
	want_id(AT "pids/all/cgroup.procs", getpid());
	want_id(AT "pids/all/limited/cgroup.procs", child);
	want(AT "pids/all/pids.current", "2");
	want_id(AT "cpuset/all/cgroup.procs", child);
	cpu_set_t cpus;
	CHECK(sched_getaffinity(child, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) == 1 && CPU_ISSET(0, &cpus));
	CHECK(fork() == -1 && errno == EAGAIN);
	/* It works on: what was frozen below the container's own stands still. */
	put(AT "pids/all/pids.max", "max");
	make(AT "freezer/still");
	put_id(AT "freezer/still/cgroup.procs", child);
	put(AT "freezer/still/freezer.state", "FROZEN");
	while (strcmp(get(AT "freezer/still/freezer.state"), "FROZEN"))
		usleep(1000);
	put(AT "freezer/still/freezer.state", "THAWED");
	kill(child, SIGKILL);
	CHECK(waitpid(child, NULL, 0) == child);
	CHECK(rmdir(AT "pids/all/limited") == 0);
}

static __attribute__((noreturn)) void *thread(void *arg)
{
	*(volatile pid_t *)arg = gettid();
	for (;;)
		pause();
}

static pid_t start(void)
{
	static volatile pid_t tid[8];
	static int n;
	pthread_t t;
	CHECK(pthread_create(&t, NULL, thread, (void *)&tid[n]) == 0);
	while (!tid[n])
		usleep(100);
	return tid[n++];
}

PROGRAM(cgroup_threads, ROOT | CGROUPS, "threads of one process in several cgroups of version 1")
{
	make(AT "cpu/slow");
	make(AT "cpu/fast");
	pid_t a = start(), b = start(), c = start();
	put_id(AT "cpu/slow/tasks", a);
	put_id(AT "cpu/fast/tasks", b);
	put_id(AT "cpu/fast/tasks", getpid());
	put(AT "cpu/slow/cpu.shares", "10");
	ready();
	want_id(AT "cpu/slow/tasks", a);
	char two[32], path[64];
	snprintf(two, sizeof two, "%d\n%d", getpid(), b);
	want(AT "cpu/fast/tasks", two);
	want(AT "cpu/slow/cpu.shares", "10");
	snprintf(path, sizeof path, "\n%d", c);
	char all[256];
	snprintf(all, sizeof all, "\n%s", get(AT "cpu/tasks"));
	CHECK(strstr(all, path));
}

PROGRAM(cgroup_owners, ROOT | ALL_CAPS | CGROUPS, "a cgroup that was given to a user, and one that the user has made in it")
{
	make(AT "pids/user");
	CHECK(chown(AT "pids/user", 1000, 1001) == 0 && chown(AT "pids/user/cgroup.procs", 1000, 1001) == 0);
	CHECK(chmod(AT "pids/user", 0700) == 0 && chmod(AT "pids/user/tasks", 0660) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		CHECK(setresgid(1001, 1001, 1001) == 0 && setresuid(1000, 1000, 1000) == 0);
		make(AT "pids/user/own");
		put(AT "pids/user/own/pids.max", "9");
		_exit(0);
	}
	CHECK(child_exits(child) == 0);
	ready();
	want_owner(AT "pids/user", 1000, 1001, 0700);
	want_owner(AT "pids/user/cgroup.procs", 1000, 1001, 0644);
	want_owner(AT "pids/user/tasks", 0, 0, 0660);
	want_owner(AT "pids/user/pids.max", 0, 0, 0644);
	want_owner(AT "pids/user/own", 1000, 1001, 0755);
	want_owner(AT "pids/user/own/pids.max", 1000, 1001, 0644);
	want_owner(AT "pids/user/own/pids.current", 1000, 1001, 0444);
	want(AT "pids/user/own/pids.max", "9");
}

/* On a machine with both versions the runtime mounts the first one only. */
#define UNIFIED "/tmp/unified/"

static void unified(void)
{
	if (mkdir("/tmp/unified", 0755))
		CHECK(errno == EEXIST);
	CHECK(mount("none", "/tmp/unified", "cgroup2", 0, NULL) == 0);
}

PROGRAM(cgroup_unified, ROOT | ALL_CAPS | CGROUPS, "cgroups of version 2: processes in domains, threads in threaded ones, limits of the tree")
{
	unified();
	make(UNIFIED "leaf");
	make(UNIFIED "leaf/deep");
	make(UNIFIED "domain");
	make(UNIFIED "domain/t1");
	make(UNIFIED "domain/t1/t2");
	put(UNIFIED "domain/t1/cgroup.type", "threaded");
	put(UNIFIED "domain/t1/t2/cgroup.type", "threaded");
	put(UNIFIED "leaf/cgroup.max.descendants", "1");
	put(UNIFIED "leaf/deep/cgroup.max.depth", "0");
	pid_t child = sleeper(), a = start(), b = start();
	put_id(UNIFIED "leaf/deep/cgroup.procs", child);
	put_id(UNIFIED "domain/cgroup.procs", getpid());
	put_id(UNIFIED "domain/t1/cgroup.threads", a);
	put_id(UNIFIED "domain/t1/t2/cgroup.threads", b);
	CHECK(umount("/tmp/unified") == 0);
	ready();
	unified();
	want_id(UNIFIED "leaf/deep/cgroup.procs", child);
	want_id(UNIFIED "domain/cgroup.procs", getpid());
	want_id(UNIFIED "domain/cgroup.threads", getpid());
	want_id(UNIFIED "domain/t1/cgroup.threads", a);
	want_id(UNIFIED "domain/t1/t2/cgroup.threads", b);
	want(UNIFIED "domain/cgroup.type", "domain threaded");
	want(UNIFIED "domain/t1/t2/cgroup.type", "threaded");
	want(UNIFIED "leaf/cgroup.max.descendants", "1");
	want(UNIFIED "leaf/deep/cgroup.max.depth", "0");
	CHECK(mkdir(UNIFIED "leaf/more", 0755) == -1 && errno == EAGAIN);
}

PROGRAM(cgroup_all_threads, ROOT | ALL_CAPS | CGROUPS, "a process of which every thread is in a threaded cgroup of version 2")
{
	unified();
	make(UNIFIED "domain");
	make(UNIFIED "domain/t");
	put(UNIFIED "domain/t/cgroup.type", "threaded");
	put_id(UNIFIED "domain/cgroup.procs", getpid());
	put_id(UNIFIED "domain/t/cgroup.procs", getpid());
	pid_t a = start();
	CHECK(umount("/tmp/unified") == 0);
	ready();
	unified();
	char both[32];
	snprintf(both, sizeof both, "%d\n%d", getpid(), a);
	want(UNIFIED "domain/t/cgroup.threads", both);
	want_id(UNIFIED "domain/cgroup.procs", getpid());
	want(UNIFIED "domain/cgroup.threads", "");
}

REFUSED(cgroup_frozen, ROOT | CGROUPS, "frozen cgroup /still", "a process that the container has frozen itself")
{
	make(AT "freezer/still");
	pid_t child = sleeper();
	put_id(AT "freezer/still/cgroup.procs", child);
	put(AT "freezer/still/freezer.state", "FROZEN");
	while (strcmp(get(AT "freezer/still/freezer.state"), "FROZEN"))
		usleep(1000);
	ready();
	want(AT "freezer/still/freezer.state", "FROZEN");
	put(AT "freezer/still/freezer.state", "THAWED");
	CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
}

REFUSED(cgroup_frozen_unified, ROOT | ALL_CAPS | CGROUPS, "frozen cgroup /still/below in cgroup version 2", "the same in version 2")
{
	unified();
	make(UNIFIED "still");
	make(UNIFIED "still/below");
	pid_t child = sleeper();
	put_id(UNIFIED "still/below/cgroup.procs", child);
	put(UNIFIED "still/below/cgroup.freeze", "1");
	while (!strstr(get(UNIFIED "still/below/cgroup.events"), "frozen 1"))
		usleep(1000);
	ready();
	want(UNIFIED "still/below/cgroup.freeze", "1");
	put(UNIFIED "still/below/cgroup.freeze", "0");
	CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
}
