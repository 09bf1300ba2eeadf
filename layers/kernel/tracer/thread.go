// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// do is Process.do, for a thread that still exists.
func (th *Thread) do(what string, fn func() error) error {
	err := th.p.do(func() error {
		if th.gone {
			return ErrExited
		}
		return gone(fn())
	})
	if err != nil {
		return fmt.Errorf("%s of task %d: %w", what, th.Tid, err)
	}
	return nil
}

// Registers returns the registers as they were at the stop, or as set by
// SetRegisters: never those of an injection in progress.
func (th *Thread) Registers() (r amd64.Registers, err error) {
	err = th.do("registers", func() error { r = th.regs; return nil })
	return r, err
}

// SetRegisters sets what the thread continues with after Detach or Release.
func (th *Thread) SetRegisters(r amd64.Registers) error {
	return th.do("registers", func() error {
		th.regs, th.prepared, th.hidden, th.rseqCS = r, false, false, []byte{}
		if th.entered {
			return nil
		}
		return ptraceSetRegs(th.Tid, &r)
	})
}

// XState returns the XSAVE area in the host's standard form (HostXSave is
// its layout). The slice is the caller's.
func (th *Thread) XState() (x []byte, err error) {
	err = th.do("xstate", func() error {
		if err := th.loadXState(); err != nil {
			return err
		}
		x = slices.Clone(th.xstate)
		return nil
	})
	return x, err
}

// loadXState reads the area once; injected code does not touch it.
func (th *Thread) loadXState() error {
	if th.xstate != nil {
		return nil
	}
	x, err := ptraceGetXState(th.Tid, th.p.Tracer.xstate[:])
	if err != nil {
		return err
	}
	x = slices.Clone(x)
	bv, err := amd64.CheckXSave(x)
	if err != nil {
		return err
	}
	const both = amd64.FeatureX87 | amd64.FeatureSSE
	if bv&both != both {
		// The processor left out what is in initial state; older kernels
		// report stale bytes there. The FXSAVE form is always complete.
		fp, err := ptraceGetFPRegs(th.Tid)
		if err != nil {
			return err
		}
		copy(x[:amd64.XSaveFeatures], fp[:amd64.XSaveFeatures])
		binary.LittleEndian.PutUint64(x[amd64.XSaveBV:], bv|both)
	}
	th.xstate = x
	return nil
}

// SetXState sets the XSAVE area, which must be in the host's layout (see
// amd64.Repack).
func (th *Thread) SetXState(x []byte) error {
	return th.do("xstate", func() error {
		if _, err := amd64.CheckXSave(x); err != nil {
			return err
		}
		if err := ptraceSetXState(th.Tid, x); err != nil {
			return err
		}
		if th.xstate, th.prepared = nil, false; !th.p.frame { // a frame needs no way back
			th.xstate = slices.Clone(x)
		}
		return nil
	})
}

// SignalMask returns the blocked signals, bit n-1 for signal n, as they were
// at the stop or as set by SetSignalMask. Inside a system call with a
// temporary mask (sigsuspend, ppoll, epoll_pwait) it is the permanent one.
func (th *Thread) SignalMask() (m uint64, err error) {
	err = th.do("signal mask", func() error { m = th.mask; return nil })
	return m, err
}

// SetSignalMask sets the mask the thread continues with.
func (th *Thread) SetSignalMask(m uint64) error {
	return th.do("signal mask", func() error {
		th.mask, th.prepared = m, false
		if th.entered {
			return nil
		}
		return ptraceSetMask(th.Tid, m)
	})
}

// Rseq returns the thread's restartable-sequences registration.
func (th *Thread) Rseq() (r Rseq, err error) {
	err = th.do("rseq", func() (err error) {
		if r = th.rseq; !th.p.frame && r.Addr != 0 {
			return nil // it was read, and injections do not change it
		}
		r, err = ptraceRseq(th.Tid)
		return err
	})
	return r, err
}

// RobustList returns the head's address and size, get_robust_list(2).
func (th *Thread) RobustList() (head, size uint64, err error) {
	err = th.do("robust list", func() error {
		_, _, e := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST, uintptr(th.Tid), uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&size)))
		if e != 0 {
			return e
		}
		return nil
	})
	return head, size, err
}

// PeekSiginfo returns the pending signals without taking them: the thread's
// own, or with shared those of the whole process. A signal whose delivery
// our stop interrupted counts as the thread's own and comes first.
func (th *Thread) PeekSiginfo(shared bool) (out []Siginfo, err error) {
	err = th.do("pending signals", func() (err error) { out, err = th.pending(shared); return err })
	return out, err
}

func (th *Thread) pending(shared bool) ([]Siginfo, error) {
	var out []Siginfo
	if th.held != 0 && !shared {
		out = append(out, th.info)
	}
	var buf [32]Siginfo
	for off := uint64(0); ; {
		n, err := ptracePeek(th.Tid, off, shared, buf[:])
		if err != nil {
			return nil, err
		}
		// Fewer than were asked for need not be the last: a signal for this thread
		// ends the call early (ptrace_peek_siginfo in kernel/ptrace.c), and Go sends
		// its threads some.
		if n == 0 {
			return out, nil
		}
		out = append(out, buf[:n]...)
		off += uint64(n)
	}
}

// ResumeRegisters returns the registers with which another task can take
// over from this thread: Registers after the rseq and system call restart
// fix-ups. A checkpoint stores these.
func (th *Thread) ResumeRegisters() (r amd64.Registers, kind RestartKind, err error) {
	err = th.do("registers", func() (err error) {
		h, err := th.handler(true)
		if err == nil {
			r, kind, err = th.resume(h)
		}
		return err
	})
	return r, kind, err
}

// resume is ResumeRegisters for a known pending handler.
func (th *Thread) resume(h PendingHandler) (amd64.Registers, RestartKind, error) {
	if err := th.loadRseq(); err != nil {
		return th.regs, 0, err
	}
	r := rseqAbort(th.regs, th.rseqCS)
	r, kind := Restart(r, h, th.p.before(&r))
	return r, kind, nil
}

// before are the bytes before the call of a thread that continues one, where it
// takes them to know which. In syscall(3), which is told, they are made up.
func (p *Process) before(r *amd64.Registers) []byte {
	if !r.InSyscall() || r.OrigRax != unix.SYS_RESTART_SYSCALL {
		return nil
	}
	b := make([]byte, len(toldCall))
	if p.Read(r.Rip-uint64(len(b)), b) == nil && bytes.Equal(b, toldCall) {
		return p.told(r.Rsp)
	}
	b = b[:gadgetMaxLen]
	if p.Read(r.Rip-uint64(len(b)), b) != nil {
		return nil
	}
	return b
}

// told is the code of the call that the caller of syscall(3) wants, sp being where
// that returns to.
func (p *Process) told(sp uint64) []byte {
	ret, code := make([]byte, 8), make([]byte, 64)
	if p.Read(sp, ret) != nil || p.Read(leUint64(ret)-uint64(len(code)), code) != nil {
		return nil
	}
	return madeCall(code)
}

// loadRseq reads the critical section the thread is in. It must happen
// before the first injection: the kernel clears the pointer when the thread
// runs elsewhere.
func (th *Thread) loadRseq() error {
	if th.rseqCS != nil {
		return nil
	}
	registered, err := th.findRseq()
	if err != nil || !registered {
		return err
	}
	ptr := make([]byte, 8)
	if err := th.p.Read(th.rseq.Addr+rseqCSField, ptr); err != nil {
		return err
	}
	th.loadSection(leUint64(ptr))
	return nil
}

// findRseq reads the thread's registration, and reports whether there is one, whose
// section is to be read.
func (th *Thread) findRseq() (bool, error) {
	th.rseqCS = []byte{}
	rs, err := ptraceRseq(th.Tid)
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) {
		return false, nil // a kernel before 5.13, or without rseq
	}
	if err != nil || rs.Addr == 0 {
		return false, err
	}
	th.rseq = rs
	return true, nil
}

// loadSection reads the struct rseq_cs at an address that the thread has told, 0 if
// it is in none.
func (th *Thread) loadSection(at uint64) {
	if at == 0 {
		return
	}
	cs := make([]byte, rseqCSSize)
	if th.p.Read(at, cs) == nil { // a bad pointer is the program's affair
		th.rseqCS = cs
	}
}

// loadRseqs is loadRseq of several threads, their pointers read together. What fails
// is left to loadRseq, which says why.
func (p *Process) loadRseqs(threads []*Thread) {
	var in gather
	var list []*Thread
	words := make([]byte, 8*len(threads))
	for _, th := range threads {
		if th.rseqCS != nil || th.gone || th.p != p {
			continue
		}
		if registered, err := th.findRseq(); err != nil {
			th.rseqCS = nil
		} else if registered {
			in.add(th.rseq.Addr+rseqCSField, words[8*len(list):][:8])
			list = append(list, th)
		}
	}
	failed := p.readAll(&in) != nil
	for i, th := range list {
		if failed {
			th.rseqCS = nil
			continue
		}
		th.loadSection(leUint64(in.local[i]))
	}
}

// handler says what handler, if any, will run before the thread goes on.
// Only with ask may it make remote calls to learn about SA_RESTART.
func (th *Thread) handler(ask bool) (PendingHandler, error) {
	if !th.regs.InSyscall() || int64(th.regs.Rax) >= 0 || th.p.caught == 0 {
		return NoHandler, nil
	}
	mask := th.mask
	if !th.entered && usesTemporaryMask(th.regs.OrigRax) {
		if st, err := readStatus(th.p.Pid, th.Tid); err == nil {
			mask = st.Signals.Blocked
		}
	}
	for _, shared := range []bool{false, true} {
		list, err := th.pending(shared)
		if err != nil {
			return NoHandler, err
		}
		for i := range list {
			sig := list[i].Signo()
			if sig < 1 || sig > 64 || mask&sigBit(sig) != 0 || th.p.caught&sigBit(sig) == 0 {
				continue
			}
			if !ask || int64(th.regs.Rax) != restartSys {
				return HandlerRestart, nil
			}
			return th.p.handlerKind(th, sig)
		}
	}
	return NoHandler, nil
}

func usesTemporaryMask(nr uint64) bool {
	switch nr {
	case unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_PPOLL, unix.SYS_PSELECT6,
		unix.SYS_RT_SIGSUSPEND, unix.SYS_IO_PGETEVENTS:
		return true
	}
	return false
}

// handlerKind asks the kernel, in the tracee, for the flags of a handler.
func (p *Process) handlerKind(th *Thread, sig int) (PendingHandler, error) {
	s, err := p.ensureScratch()
	if err != nil {
		return NoHandler, err
	}
	mark := s.user.mark()
	defer s.user.release(mark)
	at, err := s.alloc(32)
	if err != nil {
		return NoHandler, err
	}
	calls := []Call{RtSigaction(sig, 0, at)}
	if err := p.run(th, calls); err != nil {
		return NoHandler, err
	}
	if err := Check(calls); err != nil {
		return NoHandler, err
	}
	act := make([]byte, 32) // handler, flags, restorer, mask
	if err := p.Read(at, act); err != nil {
		return NoHandler, err
	}
	const saRestart = 0x10000000
	if leUint64(act[8:])&saRestart != 0 {
		return HandlerRestart, nil
	}
	return HandlerEINTR, nil
}
