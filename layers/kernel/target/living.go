// SPDX-License-Identifier: Apache-2.0

package target

import (
	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// Living is the task by which the kernel shows what all threads of a process
// have in common, in /proc as well as to kcmp(2) and its like: the leader or,
// where that has ended before the others (pthread_exit(3) of the main thread),
// one of them. A leader has nothing any more when it has ended. /proc lists no
// other threads at its top, but finds them (fs/proc/base.c, proc_pid_lookup).
func Living(pid int) int { return living(procfs.Host(), pid) }

func living(fs procfs.FS, pid int) int {
	leader := fs.Process(pid)
	if st, err := leader.Stat(); err != nil || st.State != 'Z' {
		return pid
	}
	tids, err := leader.Threads()
	if err != nil {
		return pid
	}
	for _, tid := range tids {
		if st, err := leader.Thread(tid).Stat(); err == nil && st.State != 'Z' && st.State != 'X' {
			return tid
		}
	}
	return pid
}

// Pidfd opens a pidfd of a task, for a thread that is no leader since Linux 6.9.
func Pidfd(tid int) (int, error) {
	fd, err := unix.PidfdOpen(tid, 0)
	if err == nil {
		return fd, nil
	}
	if fd, e := unix.PidfdOpen(tid, unix.PIDFD_THREAD); e == nil {
		return fd, nil
	}
	return -1, err
}
