// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

const blockAll = ^uint64(0)

// enter gives a stopped thread injected registers and mask. Registers first,
// mask second: if the tracer dies in between, the thread runs through the
// injected code and returns to its own state with its own mask.
func (th *Thread) enter(r amd64.Registers, mask uint64) error {
	if th.gone {
		return ErrExited
	}
	if th.running {
		return fmt.Errorf("task %d is still in a remote call: %w", th.Tid, ErrNoStop)
	}
	if err := ptraceSetRegs(th.Tid, &r); err != nil {
		return gone(err)
	}
	if !th.entered || th.curMask != mask {
		th.entered = true
		return th.remask(mask)
	}
	return nil
}

func (th *Thread) remask(mask uint64) error {
	if err := ptraceSetMask(th.Tid, mask); err != nil {
		return gone(err)
	}
	th.curMask = mask
	return nil
}

// resume lets the thread run with request (unix.PTRACE_CONT or _SYSCALL). A
// signal whose delivery our first stop interrupted goes back to the queue,
// siginfo and all: the kernel queues it again because it is blocked now
// (ptrace_signal in kernel/signal.c).
func (th *Thread) resumeWith(request, sig int) error {
	if th.held != 0 {
		sig, th.held = th.held, 0
	}
	if err := ptrace(request, th.Tid, 0, uintptr(sig)); err != nil {
		return gone(err)
	}
	th.running = true
	return nil
}

// await waits until done accepts a stop of an injected thread, and carries
// the thread across all others.
func (p *Process) await(th *Thread, deadline time.Time, request int, done func(stop) bool) error {
	turns := newPace(context.Background(), deadline)
	turns.idle = func() error { return p.buryDead(th) }
	for {
		s, err := waitStop(th.Tid, turns)
		if errors.Is(err, errDying) {
			return err
		}
		if errors.Is(err, ErrExited) {
			p.drop(th)
			return err
		}
		if err != nil {
			return err
		}
		th.running = false
		if done(s) {
			return nil
		}
		sig := 0
		switch {
		case s.Event != 0, s.Sig == syscallStop:
			// A group-stop begins or ends, or an event of a frame.
		case isStopSignal(s.Sig):
			sig = s.Sig // cannot be held back; the thread stops and we resume it
		case s.Sig == p.stopSig:
			// Somebody else's. If the program blocks it, it may want to
			// read it: back to the queue, and on without signals.
			if p.stopSigBlocked {
				if err := th.remask(blockAll); err != nil {
					return err
				}
				request, sig = unix.PTRACE_SYSCALL, s.Sig
			}
		default:
			return &BatchError{Tid: th.Tid, Call: -1, Signal: s.Sig}
		}
		if err := th.resumeWith(request, sig); err != nil {
			return err
		}
	}
}

// buryShare bounds what the looks for dead threads cost: so many times as long
// as the last one took there is none.
const buryShare = 16

// buryDead takes the status of threads that have died while we wait for th,
// and tells whether th has: the end of a leader is reported only after that
// of its siblings. There may be thousands, and a wait for each of them.
func (p *Process) buryDead(th *Thread) error {
	started := time.Now()
	if started.Before(p.nextBurial) {
		return nil
	}
	defer func() {
		now := time.Now()
		p.nextBurial = now.Add(buryShare * now.Sub(started))
	}()
	for _, o := range p.live() {
		if o == th {
			continue
		}
		if _, err := peekStop(o.Tid); errors.Is(err, ErrExited) {
			p.drop(o)
		}
	}
	st, err := readStatus(p.Pid, th.Tid)
	if err != nil {
		return err
	}
	if dead := st.State == 'Z' || st.State == 'X'; dead && !p.frame {
		return ErrExited
	} else if p.frame {
		return p.dying(th, dead)
	}
	return nil
}

// stubCall makes one call in th at gadget ("syscall; ret"), stopping before
// and after it. frame is where the thread returns to if the tracer dies; its
// first word must lead to rt_sigreturn. It leaves the thread behind the call.
//
// Up to the stop before it the call is rt_sigreturn itself, which leads a thread
// back whose filter would kill it for the other, if the tracer dies.
func (p *Process) stubCall(th *Thread, gadget, frame uint64, c *Call) error {
	c.Ret = retPending
	r := stubRegisters(th.regs, gadget, frame, c)
	first := r
	if !p.frame {
		first.Rax, first.Rsp = unix.SYS_RT_SIGRETURN, frame+8
	}
	if err := th.enter(first, blockAll); err != nil {
		return err
	}
	if err := th.resumeWith(unix.PTRACE_SYSCALL, 0); err != nil {
		return err
	}
	if err := p.awaitCall(th); err != nil {
		return &BatchError{Tid: th.Tid, Call: -1, Nr: c.Nr, Cause: err}
	}
	r.Rip, r.OrigRax = gadget+syscallInsnSize, c.Nr
	deadly := !p.frame && th.diesOf([]Call{*c})
	if err := ptraceSetRegs(th.Tid, &r); err != nil {
		return gone(err)
	}
	if err := th.resumeWith(unix.PTRACE_SYSCALL, 0); err != nil {
		return err
	}
	if deadly {
		linger()
	}
	if err := p.awaitCall(th); err != nil {
		return &BatchError{Tid: th.Tid, Call: -1, Nr: c.Nr, Cause: err}
	}
	r, err := ptraceGetRegs(th.Tid)
	if err != nil {
		return gone(err)
	}
	if r.Rip != gadget+syscallInsnSize || r.OrigRax != c.Nr {
		return &BatchError{Tid: th.Tid, Call: -1, Nr: c.Nr, Signal: syscallStop, Cause: fmt.Errorf("task stands at %#x in system call %d", r.Rip, int64(r.OrigRax))}
	}
	c.Ret = int64(r.Rax)
	return nil
}

// awaitCall waits for the stop before or after a call.
func (p *Process) awaitCall(th *Thread) error {
	return p.await(th, p.batchDeadline(), unix.PTRACE_SYSCALL, func(s stop) bool {
		return s.Event == 0 && s.Sig == syscallStop
	})
}

// park moves a stopped thread to the way back in the scratch page, where it
// waits for its next batch: nothing but its own frame matters there.
func (p *Process) park(th *Thread) error {
	return th.enter(parkRegisters(th.regs, p.scratch.base, th.slot.frame), blockAll)
}

// finish gives a thread its own state back. Mask first, registers second: in
// between, the death of the tracer still leads through the frame.
func (p *Process) finish(th *Thread) error {
	r := th.regs
	if th.entered {
		if err := ptraceSetMask(th.Tid, th.mask); err != nil {
			return gone(err)
		}
		if err := th.endSequence(); err != nil {
			return err
		}
		r = rseqAbort(r, th.rseqCS)
	}
	r, hidden := p.hideStop(th, r)
	if th.entered || hidden != th.hidden {
		if err := ptraceSetRegs(th.Tid, &r); err != nil {
			return gone(err)
		}
	}
	th.entered, th.hidden = false, hidden
	return nil
}

// hideStop undoes an EINTR that our stop alone caused. Calls that return a
// restart code are left to the kernel, which still has their restart block,
// unless the thread's filters forbid that: then a time-out starts anew.
// It happens as soon as the thread has stopped, in case the tracer dies, and
// is decided again at the end: by then a signal may have come whose handler
// the program expects to end the call.
func (p *Process) hideStop(th *Thread, r amd64.Registers) (amd64.Registers, bool) {
	if p.frame || !r.InSyscall() {
		return r, false
	}
	blocked := int64(r.Rax) == restartBlock && p.hatesRestart(th, &r)
	if int64(r.Rax) != interrupted && !blocked {
		return r, false
	}
	h, err := th.handler(false)
	if err != nil || h != NoHandler {
		return r, false
	}
	fixed, kind := Restart(r, NoHandler, p.before(&r))
	return fixed, kind != RestartNone
}
