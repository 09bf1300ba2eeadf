// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// Requests and options x/sys lacks, include/uapi/linux/ptrace.h.
const (
	ptraceGetSigmask = 0x420a
	ptraceSetSigmask = 0x420b
	ptraceGetRseq    = 0x420f
	regsetXState     = 0x202 // NT_X86_XSTATE
	peekShared       = 1     // PTRACE_PEEKSIGINFO_SHARED

	optSuspendSeccomp = 1 << 21 // PTRACE_O_SUSPEND_SECCOMP

	sourceOptions = unix.PTRACE_O_TRACESYSGOOD
	frameOptions  = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL

	eventStop   = 128 // PTRACE_EVENT_STOP
	syscallStop = int(unix.SIGTRAP) | 0x80
)

// leUint64 reads a little-endian word.
func leUint64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// All requests below must run on the tracer's thread. RawSyscall: none but
// SEIZE blocks, and handing the processor over costs more than they do.
func ptrace(req, tid int, addr, data uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, data, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// ptraceSeize can block while the target execs (see undertaker): so it must
// hand over the processor, or the whole program stands still at the next
// garbage collection.
func ptraceSeize(tid, options int) error {
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(tid), 0, uintptr(options), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// ptracePtr is ptrace for requests that read or write memory at data. It
// must stay a pointer until the system call itself: a goroutine's stack moves
// when it grows, and a uintptr does not move along.
func ptracePtr(req, tid int, addr uintptr, data unsafe.Pointer) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, uintptr(data), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func ptraceInterrupt(tid int) error     { return ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0) }
func ptraceCont(tid, sig int) error     { return ptrace(unix.PTRACE_CONT, tid, 0, uintptr(sig)) }
func ptraceDetach(tid, sig int) error   { return ptrace(unix.PTRACE_DETACH, tid, 0, uintptr(sig)) }
func ptraceOptions(tid, opts int) error { return ptrace(unix.PTRACE_SETOPTIONS, tid, 0, uintptr(opts)) }

func ptraceGetRegs(tid int) (r amd64.Registers, err error) {
	err = ptracePtr(unix.PTRACE_GETREGS, tid, 0, unsafe.Pointer(&r))
	return r, err
}

func ptraceSetRegs(tid int, r *amd64.Registers) error {
	return ptracePtr(unix.PTRACE_SETREGS, tid, 0, unsafe.Pointer(r))
}

func ptraceGetMask(tid int) (m uint64, err error) {
	err = ptracePtr(ptraceGetSigmask, tid, 8, unsafe.Pointer(&m))
	return m, err
}

func ptraceSetMask(tid int, m uint64) error {
	return ptracePtr(ptraceSetSigmask, tid, 8, unsafe.Pointer(&m))
}

// xstateRoom is more than any XSAVE area takes, in bytes.
const xstateRoom = 16 << 10

// ptraceGetXState reads the XSAVE area and returns the part of b that it fills; a
// buffer larger than the area is fine, a smaller one would be EFAULT on some kernels.
func ptraceGetXState(tid int, b []byte) ([]byte, error) {
	v := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	err := ptracePtr(unix.PTRACE_GETREGSET, tid, regsetXState, unsafe.Pointer(&v))
	runtime.KeepAlive(b)
	if err != nil {
		return nil, err
	}
	return b[:v.Len:v.Len], nil
}

func ptraceSetXState(tid int, x []byte) error {
	v := unix.Iovec{Base: &x[0], Len: uint64(len(x))}
	err := ptracePtr(unix.PTRACE_SETREGSET, tid, regsetXState, unsafe.Pointer(&v))
	runtime.KeepAlive(x)
	return err
}

// ptraceGetFPRegs reads the FXSAVE image.
func ptraceGetFPRegs(tid int) (b [amd64.XSaveLegacySize]byte, err error) {
	err = ptracePtr(unix.PTRACE_GETFPREGS, tid, 0, unsafe.Pointer(&b))
	return b, err
}

func ptraceRseq(tid int) (Rseq, error) {
	var c struct {
		Rseq
		pad uint32
	}
	err := ptracePtr(ptraceGetRseq, tid, unsafe.Sizeof(c), unsafe.Pointer(&c))
	return c.Rseq, err
}

func ptraceSiginfo(tid int) (s Siginfo, err error) {
	err = ptracePtr(unix.PTRACE_GETSIGINFO, tid, 0, unsafe.Pointer(&s))
	return s, err
}

// ptracePeek reads up to len(out) pending signals from offset on.
func ptracePeek(tid int, offset uint64, shared bool, out []Siginfo) (int, error) {
	args := struct {
		off   uint64
		flags uint32
		nr    int32
	}{off: offset, nr: int32(len(out))}
	if shared {
		args.flags = peekShared
	}
	n, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_PEEKSIGINFO, uintptr(tid),
		uintptr(unsafe.Pointer(&args)), uintptr(unsafe.Pointer(&out[0])), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// Siginfo is the kernel's siginfo_t.
type Siginfo [128]byte

// Signo is the signal's number.
func (s *Siginfo) Signo() int { return int(int32(binary.LittleEndian.Uint32(s[0:]))) }

// Code is si_code.
func (s *Siginfo) Code() int { return int(int32(binary.LittleEndian.Uint32(s[8:]))) }

// Pid is si_pid, for codes that have one.
func (s *Siginfo) Pid() int { return int(int32(binary.LittleEndian.Uint32(s[16:]))) }

// userDispatch is struct ptrace_sud_config of include/uapi/linux/ptrace.h.
type userDispatch struct{ mode, selector, offset, length uint64 }

// ptraceUserDispatch reads prctl(PR_SET_SYSCALL_USER_DISPATCH)'s settings. A
// kernel before 6.4 does not tell: EIO.
func ptraceUserDispatch(tid int) (d userDispatch, err error) {
	const request = 0x4211 // PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
	err = ptracePtr(request, tid, unsafe.Sizeof(d), unsafe.Pointer(&d))
	return d, err
}
