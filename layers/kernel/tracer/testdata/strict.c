// SPDX-License-Identifier: Apache-2.0
// A seccomp filter kills the process for anything but read, write, exit,
// rt_sigreturn. With an argument it allows mmap and munmap, too; with "poll" it
// waits in a poll with a time-out for its input, which it allows instead.
#include <stddef.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
	int polls = argc > 1 && !strcmp(argv[1], "poll");
#define OK(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		OK(polls ? SYS_poll : argc > 1 ? SYS_mmap : SYS_read), OK(argc > 1 && !polls ? SYS_munmap : SYS_read),
		OK(SYS_read), OK(SYS_write), OK(SYS_exit_group), OK(SYS_rt_sigreturn),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog p = {sizeof f / sizeof *f, f};
	char c;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p)) return 1;
	write(1, "ready\n", 6);
	for (struct pollfd in = {.events = POLLIN}; polls && read(0, &c, poll(&in, 1, 5000)) > 0;) write(1, "OK\n", 3);
	while (read(0, &c, 1) > 0) write(1, "OK\n", 3);
	_exit(7);
}
