// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Seizing tells whether the tracer waits in the kernel for a thread that it
// seizes, and for which; 0 if not. A thread that is stopped by job control has
// to move to a ptrace stop first, which it cannot do while it is frozen (v1's
// freezer; ptrace_attach of kernel/ptrace.c). It may be called from any
// goroutine.
func (t *Tracer) Seizing() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", t.tid))
	if err != nil {
		return 0
	}
	return seizedThread(string(b))
}

// seizedThread reads /proc/PID/syscall (fs/proc/base.c, proc_pid_syscall): the
// number and arguments of the system call in which a task sleeps, in
// hexadecimal but for the number, or "running".
func seizedThread(text string) int {
	f := strings.Fields(text)
	if len(f) < 3 || f[0] != strconv.Itoa(unix.SYS_PTRACE) || f[1] != fmt.Sprintf("%#x", unix.PTRACE_SEIZE) {
		return 0
	}
	tid, err := strconv.ParseInt(f[2], 0, 32)
	if err != nil {
		return 0
	}
	return int(tid)
}
