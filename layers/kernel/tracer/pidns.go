// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Requests of include/uapi/linux/nsfs.h, Linux 6.11: they translate a thread's
// id without a look into /proc, which takes a hundred times as long.
const (
	nsGetPidFromPidns = 0x8004b706 // _IOR(NSIO, 0x6, int)
	nsGetPidInPidns   = 0x8004b708 // _IOR(NSIO, 0x8, int)
)

// pidNamespace is the process's innermost pid namespace. Its zero value is not
// open.
type pidNamespace struct {
	fd   int // valid if open
	open bool
	// old: this kernel does not translate.
	old bool
}

// errOld: the kernel does not know the requests.
var errOld = errors.New("no translation of thread ids")

func (n *pidNamespace) translate(pid int, request uint, id int) (int, error) {
	if n.old {
		return 0, errOld
	}
	if !n.open {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, notThere(err)
		}
		n.fd, n.open = fd, true
	}
	got, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(n.fd), uintptr(request), uintptr(id))
	switch e {
	case 0:
		return int(got), nil
	case unix.ESRCH:
		return 0, fmt.Errorf("task %d: %w", id, ErrExited)
	}
	n.old = true // ENOTTY, EINVAL
	return 0, errOld
}

func (n *pidNamespace) close() {
	if n.open {
		_ = unix.Close(n.fd)
		n.open = false
	}
}

// innerTid is the id that a thread of the process has in its own namespace.
func (p *Process) innerTid(tid int) (int, error) {
	inner, err := p.pidns.translate(p.via(), nsGetPidInPidns, tid)
	if !errors.Is(err, errOld) {
		return inner, err
	}
	st, err := readStatus(p.Pid, tid)
	return st.NSTid, err
}
