// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelSigaction is struct sigaction of arch/x86/include/uapi/asm/signal.h, as
// rt_sigaction(2) takes it.
type kernelSigaction struct {
	handler, flags, restorer, mask uint64
}

// saNoCldStop is SA_NOCLDSTOP of include/uapi/asm-generic/signal-defs.h.
const saNoCldStop = 1

// quietStops keeps the kernel from sending this program a SIGCHLD for each stop of a
// tracee (do_notify_parent_cldstop in kernel/signal.c). Go has a handler for that
// signal, so each would interrupt or wake some thread of ours, for nothing: stops are
// looked for with waitid(2). What tells of the end of children stays as it is.
var quietStops = sync.OnceFunc(func() {
	var a kernelSigaction
	if sigaction(unix.SIGCHLD, nil, &a) == 0 {
		a.flags |= saNoCldStop
		_ = sigaction(unix.SIGCHLD, &a, nil) // where it fails, it is only slower
	}
})

func sigaction(sig unix.Signal, act, old *kernelSigaction) unix.Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	return e
}
