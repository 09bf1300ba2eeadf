/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/utsname.h>

static void caps(uint64_t *effective, uint64_t *permitted, uint64_t *inheritable)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	CHECK(syscall(SYS_capget, &header, data) == 0);
	*effective = data[0].effective | (uint64_t)data[1].effective << 32;
	*permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	*inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
}

PROGRAM(identity_ids, ALL_CAPS | ROOT, "real, effective, saved and file system ids, groups")
{
	gid_t groups[3] = {10, 20, 300};
	CHECK(setgroups(3, groups) == 0);
	CHECK(setresgid(5, 6, 7) == 0 && setresuid(0, 1234, 99) == 0);
	ready();
	uid_t r, e, s;
	gid_t got[8];
	CHECK(getresuid(&r, &e, &s) == 0 && r == 0 && e == 1234 && s == 99);
	CHECK(getresgid(&r, &e, &s) == 0 && r == 5 && e == 6 && s == 7);
	CHECK(getgroups(8, got) == 3 && got[0] == 10 && got[1] == 20 && got[2] == 300);
}

PROGRAM(identity_dropped, ALL_CAPS | ROOT, "a server that has dropped root for good, with a file that is its own")
{
	CHECK(mkdir("/tmp/own", 0700) == 0 || errno == EEXIST);
	CHECK(chown("/tmp/own", 1000, 1000) == 0);
	CHECK(setgroups(0, NULL) == 0 && setresgid(1000, 1000, 1000) == 0 && setresuid(1000, 1000, 1000) == 0);
	int fd = SYS(open("/tmp/own/secret", O_RDWR | O_CREAT, 0600));
	CHECK(write(fd, "s", 1) == 1);
	ready();
	uint64_t effective, permitted, inheritable;
	caps(&effective, &permitted, &inheritable);
	CHECK(getuid() == 1000 && effective == 0 && permitted == 0);
	CHECK(setuid(0) == -1 && errno == EPERM);
	char c;
	CHECK(pread(fd, &c, 1, 0) == 1 && c == 's');
	CHECK(open("/tmp/own/secret", O_RDONLY) != -1);
}

PROGRAM(identity_capabilities, ALL_CAPS | ROOT, "capability sets, the bounding and the ambient set")
{
	uint64_t keep = 1ull << CAP_NET_BIND_SERVICE | 1ull << CAP_CHOWN | 1ull << CAP_SETPCAP;
	CHECK(prctl(PR_CAPBSET_DROP, CAP_SYS_CHROOT, 0, 0, 0) == 0);
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{.effective = 1u << CAP_CHOWN, .permitted = keep, .inheritable = 1u << CAP_NET_BIND_SERVICE}};
	CHECK(syscall(SYS_capset, &header, data) == 0);
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) == 0);
	ready();
	uint64_t effective, permitted, inheritable;
	caps(&effective, &permitted, &inheritable);
	CHECK(effective == 1ull << CAP_CHOWN && permitted == keep && inheritable == 1ull << CAP_NET_BIND_SERVICE);
	CHECK(prctl(PR_CAPBSET_READ, CAP_SYS_CHROOT) == 0 && prctl(PR_CAPBSET_READ, CAP_CHOWN) == 1);
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_BIND_SERVICE, 0, 0) == 1);
}

PROGRAM(identity_securebits, ALL_CAPS | ROOT, "secure bits")
{
	CHECK(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED) == 0);
	ready();
	CHECK(prctl(PR_GET_SECUREBITS) == (SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED));
}

PROGRAM(identity_namespaces, ANYONE, "host name, and the ids of the root's owner")
{
	struct utsname was, is;
	CHECK(uname(&was) == 0);
	ready();
	CHECK(uname(&is) == 0 && !strcmp(was.nodename, is.nodename));
	CHECK(getpid() == 1);
}

PROGRAM(identity_hostname, ALL_CAPS | ROOT, "a host name that was changed at run time")
{
	CHECK(sethostname("renamed", 7) == 0);
	ready();
	struct utsname is;
	CHECK(uname(&is) == 0 && !strcmp(is.nodename, "renamed"));
}
