// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Call is one remote system call. Its memory layout, eight 64-bit words, is
// what the loop in the tracee's scratch page reads and writes (code.go).
// Ret is valid after Run: the raw result, negative errno on failure.
type Call struct {
	Nr   uint64
	Args [6]uint64
	Ret  int64
}

// CallSize is the size of a Call in the tracee's memory in bytes.
const CallSize = 64

// retPending fills Ret before a batch, so that a call which was never made
// cannot be taken for one that succeeded. No system call returns it.
const retPending = int64(-1 << 62)

// Syscall makes a Call; missing arguments are zero.
func Syscall(nr uintptr, args ...uint64) Call {
	c := Call{Nr: uint64(nr), Ret: retPending}
	copy(c.Args[:], args)
	return c
}

// Mmap maps length bytes; fd -1 for anonymous memory.
func Mmap(addr, length uint64, prot, flags, fd int, offset uint64) Call {
	return Syscall(unix.SYS_MMAP, addr, length, uint64(prot), uint64(flags), uint64(int64(fd)), offset)
}

// Munmap unmaps length bytes at addr.
func Munmap(addr, length uint64) Call { return Syscall(unix.SYS_MUNMAP, addr, length) }

// Mprotect sets the protection of length bytes at addr.
func Mprotect(addr, length uint64, prot int) Call {
	return Syscall(unix.SYS_MPROTECT, addr, length, uint64(prot))
}

// Prctl calls prctl(2).
func Prctl(option int, args ...uint64) Call {
	return Syscall(unix.SYS_PRCTL, append([]uint64{uint64(option)}, args...)...)
}

// Close closes descriptor fd.
func Close(fd int) Call { return Syscall(unix.SYS_CLOSE, uint64(fd)) }

// Dup3 duplicates oldfd onto newfd; flags is 0 or O_CLOEXEC.
func Dup3(oldfd, newfd, flags int) Call {
	return Syscall(unix.SYS_DUP3, uint64(oldfd), uint64(newfd), uint64(flags))
}

// RtSigaction calls rt_sigaction(2) with remote addresses of struct
// kernel_sigaction (32 bytes on x86-64); 0 leaves one out.
func RtSigaction(sig int, act, oldact uint64) Call {
	return Syscall(unix.SYS_RT_SIGACTION, uint64(sig), act, oldact, 8)
}

// Sigaltstack calls sigaltstack(2) with remote addresses of struct stack_t.
func Sigaltstack(ss, old uint64) Call { return Syscall(unix.SYS_SIGALTSTACK, ss, old) }

// Failed says whether the call returned an error or was never made.
func (c *Call) Failed() bool { return c.Ret == retPending || (c.Ret < 0 && c.Ret >= -4095) }

// Errno returns nil if the call succeeded, else its unix.Errno, which works
// with errors.Is. A call that was never made reports ErrBatch.
func (c *Call) Errno() error {
	switch {
	case c.Ret == retPending:
		return ErrBatch
	case c.Failed():
		return unix.Errno(-c.Ret)
	}
	return nil
}

// CallError is a remote call that failed.
type CallError struct {
	Index int // position in its batch
	Call  Call
}

func (e *CallError) Error() string {
	a := e.Call.Args
	return fmt.Sprintf("remote call %d: system call %d(%#x, %#x, %#x, %#x, %#x, %#x): %v", e.Index, e.Call.Nr, a[0], a[1], a[2], a[3], a[4], a[5], e.Call.Errno())
}

// Unwrap returns the errno.
func (e *CallError) Unwrap() error { return e.Call.Errno() }

// Check returns the first failed call of a batch as a *CallError, or nil.
func Check(calls []Call) error {
	for i := range calls {
		if calls[i].Failed() {
			return &CallError{Index: i, Call: calls[i]}
		}
	}
	return nil
}

// appendCalls appends the remote form of calls, with every Ret pending.
func appendCalls(b []byte, calls []Call) []byte {
	for i := range calls {
		b = binary.LittleEndian.AppendUint64(b, calls[i].Nr)
		for _, a := range calls[i].Args {
			b = binary.LittleEndian.AppendUint64(b, a)
		}
		pending := retPending
		b = binary.LittleEndian.AppendUint64(b, uint64(pending))
	}
	return b
}

// takeResults reads the results of calls from their remote form.
func takeResults(calls []Call, b []byte) {
	for i := range calls {
		calls[i].Ret = int64(binary.LittleEndian.Uint64(b[i*CallSize+56:]))
	}
}
