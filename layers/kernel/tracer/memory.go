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

// gather are blocks of a process's memory that are read or written with one
// system call for up to maxGather of them.
type gather struct {
	local  [][]byte
	remote []unix.RemoteIovec
}

// maxGather is IOV_MAX.
const maxGather = 1024

func (g *gather) add(addr uint64, b []byte) {
	g.local = append(g.local, b)
	g.remote = append(g.remote, unix.RemoteIovec{Base: uintptr(addr), Len: len(b)})
}

// readAll is Read of all blocks. After an error any of them may have been read.
func (p *Process) readAll(g *gather) error { return p.all("read", unix.ProcessVMReadv, g) }

// writeAll is Write of all blocks.
func (p *Process) writeAll(g *gather) error { return p.all("write", unix.ProcessVMWritev, g) }

func (p *Process) all(verb string, call func(int, []unix.Iovec, []unix.RemoteIovec, uint) (int, error), g *gather) error {
	for at := 0; at < len(g.local); at += maxGather {
		end := min(at+maxGather, len(g.local))
		local, total := make([]unix.Iovec, end-at), 0
		for i, b := range g.local[at:end] {
			local[i].Base = unsafe.SliceData(b)
			local[i].SetLen(len(b))
			total += len(b)
		}
		n, err := call(p.via(), local, g.remote[at:end], 0)
		runtime.KeepAlive(g.local)
		if err == unix.ESRCH {
			err = ErrExited
		}
		if err == nil && n != total {
			err = unix.EFAULT
		}
		if err != nil {
			return fmt.Errorf("%s %d blocks of process %d, %d of %d bytes done: %w", verb, end-at, p.Pid, max(n, 0), total, err)
		}
	}
	return nil
}

func (p *Process) vm(nr uintptr, verb string, addr uint64, b []byte) error {
	for done := 0; done < len(b); {
		local := unix.Iovec{Base: &b[done], Len: uint64(len(b) - done)}
		remote := unix.RemoteIovec{Base: uintptr(addr) + uintptr(done), Len: len(b) - done}
		var n uintptr
		var e unix.Errno
		if len(b) <= pageSize { // too short to be worth handing the processor over
			n, _, e = unix.RawSyscall6(nr, uintptr(p.via()), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
		} else {
			n, _, e = unix.Syscall6(nr, uintptr(p.via()), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
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
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/mem", p.via()), unix.O_RDWR|unix.O_CLOEXEC, 0)
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
