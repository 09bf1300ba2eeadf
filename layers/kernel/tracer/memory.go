// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read reads len(b) bytes at addr with process_vm_readv: as the program
// itself might read them. It may be called from any goroutine.
func (p *Process) Read(addr uint64, b []byte) error {
	return p.vm(unix.SYS_PROCESS_VM_READV, "read", addr, b)
}

// Write writes b at addr with process_vm_writev, which fails on memory the
// program may not write. It may be called from any goroutine.
func (p *Process) Write(addr uint64, b []byte) error {
	return p.vm(unix.SYS_PROCESS_VM_WRITEV, "write", addr, b)
}

func (p *Process) vm(nr uintptr, verb string, addr uint64, b []byte) error {
	for done := 0; done < len(b); {
		local := unix.Iovec{Base: &b[done], Len: uint64(len(b) - done)}
		remote := unix.RemoteIovec{Base: uintptr(addr) + uintptr(done), Len: len(b) - done}
		var n uintptr
		var e unix.Errno
		if len(b) <= pageSize { // too short to be worth handing the processor over
			n, _, e = unix.RawSyscall6(nr, uintptr(p.Pid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
		} else {
			n, _, e = unix.Syscall6(nr, uintptr(p.Pid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
		}
		runtime.KeepAlive(b)
		if e == unix.ESRCH {
			return fmt.Errorf("%s %d bytes at %#x of process %d: %w", verb, len(b), addr, p.Pid, ErrExited)
		}
		if e == 0 && n == 0 {
			e = unix.EFAULT
		}
		if e != 0 {
			return fmt.Errorf("%s %d bytes at %#x of process %d: stopped after %d: %w", verb, len(b), addr, p.Pid, done, e)
		}
		done += int(n)
	}
	return nil
}

// ReadForce reads through /proc/PID/mem, past the mapping's protection.
func (p *Process) ReadForce(addr uint64, b []byte) error {
	return p.mem("read", addr, b, unix.Pread)
}

// WriteForce writes through /proc/PID/mem, past the mapping's protection. A
// write to a private file page makes it anonymous.
func (p *Process) WriteForce(addr uint64, b []byte) error {
	return p.mem("write", addr, b, unix.Pwrite)
}

// mem runs on the tracer's thread: newer kernels may reserve this power to
// it (proc_mem.force_override=ptrace).
func (p *Process) mem(verb string, addr uint64, b []byte, op func(int, []byte, int64) (int, error)) error {
	return p.Do(func() error {
		if p.memFD < 0 {
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/mem", p.Pid), unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open memory of process %d: %w", p.Pid, notThere(err))
			}
			p.memFD = fd
		}
		for done := 0; done < len(b); {
			n, err := op(p.memFD, b[done:], int64(addr)+int64(done))
			if n == 0 && err == nil {
				err = ErrExited // no address space any more
			}
			if err != nil {
				return fmt.Errorf("%s %d bytes at %#x of process %d, protection ignored: stopped after %d: %w", verb, len(b), addr, p.Pid, done, err)
			}
			done += n
		}
		return nil
	})
}
