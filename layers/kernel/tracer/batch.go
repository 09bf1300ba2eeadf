// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// slot is a thread's part of the scratch area.
type slot struct {
	frame uint64 // the way back, for sources
	calls uint64 // room for its calls and the one that ends the batch
	cap   int    // calls that fit
}

// slotSize is the room a thread needs at first in bytes.
func (p *Process) slotSize() uint64 {
	l := HostXSave()
	return uint64(sigframeSize(l.Size(l.Features))+slotCalls*CallSize) + 2*frameAlign
}

// frameData is what a signal frame restores.
type frameData struct {
	regs amd64.Registers
	mask uint64
	x    []byte
}

func (f *frameData) xsize() int { return len(f.x) }

func (f *frameData) encode(at, restorer uint64) []byte {
	return sigframe(at, restorer, &f.regs, f.mask, f.x)
}

// encodeFrame collects what brings th back to its own state.
func (p *Process) encodeFrame(th *Thread) (f frameData, err error) {
	h, err := th.handler(false)
	if err != nil {
		return f, gone(err)
	}
	if f.regs, _, err = th.resume(h); err != nil {
		return f, gone(err)
	}
	if err := th.loadXState(); err != nil {
		return f, gone(err)
	}
	layout := HostXSave()
	n, err := sigframeXSize(th.xstate, &layout)
	f.mask, f.x = th.mask, th.xstate[:n]
	return f, err
}

// prepare gives th a slot with a current frame.
func (p *Process) prepare(th *Thread) error {
	if th.prepared {
		return nil
	}
	s := p.scratch
	var err error
	if th.slot.calls == 0 {
		if th.slot.calls, err = s.from(&s.internal, slotCalls*CallSize); err != nil {
			return err
		}
		th.slot.cap = slotCalls
	}
	if !p.frame {
		f, err := p.encodeFrame(th)
		if err != nil {
			return err
		}
		if th.slot.frame == 0 {
			l := HostXSave()
			if th.slot.frame, err = s.from(&s.internal, sigframeSize(l.Size(l.Features))); err != nil {
				return err
			}
		}
		if err := p.Write(th.slot.frame, f.encode(th.slot.frame, s.restorer)); err != nil {
			return err
		}
	}
	th.prepared = true
	return nil
}

// Run makes calls in thread th, in order, and fills their Ret. A failing call
// does not end the batch: use Check. The error tells about the batch itself;
// the handle stays usable unless it is ErrExited or a deadline, after which
// only Leave and Kill make sense.
//
// Remote calls must not block, must leave alone what an injection relies on
// (the thread's own signal mask, the scratch mapping) and must not arm
// restart blocks (nanosleep, poll, timed futex waits).
func (p *Process) Run(th *Thread, calls []Call) error {
	return p.do(func() error { return p.run(th, calls) })
}

func (p *Process) run(th *Thread, calls []Call) error {
	return p.runEach([]Batch{{th, calls}})
}

// Batch is a list of calls for one thread.
type Batch struct {
	Thread *Thread
	Calls  []Call
}

// RunEach runs several threads' batches in parallel; each thread may appear
// once. It returns the joined errors after all batches have ended.
func (p *Process) RunEach(batches []Batch) error {
	return p.do(func() error { return p.runEach(batches) })
}

// cursor is the progress of one batch.
type cursor struct {
	Batch
	n int // calls in flight
}

func (p *Process) runEach(batches []Batch) error {
	if _, err := p.ensureScratch(); err != nil {
		return err
	}
	work := make([]cursor, 0, len(batches))
	for _, b := range batches {
		for i := range b.Calls {
			b.Calls[i].Ret = retPending
		}
		if len(b.Calls) > 0 {
			work = append(work, cursor{Batch: b})
		}
	}
	var errs []error
	for len(work) > 0 {
		for i := range work { // before any runs: the area grows by a call of its own thread
			if err := p.makeRoom(&work[i]); err != nil {
				return errors.Join(append(errs, fmt.Errorf("prepare batch in task %d: %w", work[i].Thread.Tid, err))...)
			}
		}
		started := 0
		for i := range work {
			if err := p.start(&work[i]); err != nil {
				errs = append(errs, fmt.Errorf("start batch in task %d: %w", work[i].Thread.Tid, err))
				break
			}
			started++
		}
		left := work[:0]
		deadline := p.batchDeadline()
		for i := range work[:started] {
			c := work[i]
			if err := p.collect(&c, deadline); err != nil {
				errs = append(errs, err)
			} else if len(c.Calls) > 0 {
				left = append(left, c)
			}
		}
		if work = left; len(errs) > 0 {
			break
		}
	}
	return errors.Join(errs...)
}

// makeRoom gives the batch's thread a frame and a slot for the next calls. No
// thread may be running.
func (p *Process) makeRoom(c *cursor) error {
	th, s := c.Thread, p.scratch
	if th.p != p {
		return fmt.Errorf("task %d belongs to another process", th.Tid)
	}
	if err := p.prepare(th); err != nil {
		return err
	}
	if want := min(len(c.Calls), maxCalls) + 1; want > th.slot.cap {
		addr, err := s.from(&s.internal, want*CallSize)
		if err != nil {
			return err
		}
		th.slot.calls, th.slot.cap = addr, want
	}
	return nil
}

// start writes the next calls of a batch and sets its thread going.
func (p *Process) start(c *cursor) error {
	th, s := c.Thread, p.scratch
	c.n = min(len(c.Calls), th.slot.cap-1)
	b := appendCalls(make([]byte, 0, (c.n+1)*CallSize), c.Calls[:c.n])
	b = appendCalls(b, []Call{p.lastCall(th)})
	if err := p.Write(th.slot.calls, b); err != nil {
		return err
	}
	mask, request := p.batchMode()
	if err := th.enter(loopRegisters(th.regs, s.base, th.slot.calls, c.n+1, th.slot.frame), mask); err != nil {
		return err
	}
	return th.resumeWith(request, 0)
}

// batchMode: with a signal to end it a batch runs through; without one the
// thread stops before and after every call.
func (p *Process) batchMode() (mask uint64, request int) {
	if p.stopSig == 0 {
		return blockAll, unix.PTRACE_SYSCALL
	}
	return blockAll &^ sigBit(p.stopSig), unix.PTRACE_CONT
}

// lastCall ends a batch: by the signal, or by being stopped at.
func (p *Process) lastCall(th *Thread) Call {
	if p.stopSig == 0 {
		return Syscall(unix.SYS_GETPID)
	}
	return Syscall(unix.SYS_TGKILL, uint64(p.NSPid), uint64(th.NSTid), uint64(p.stopSig))
}

// collect waits for the end of what start began and takes the results.
func (p *Process) collect(c *cursor, deadline time.Time) error {
	th := c.Thread
	_, request := p.batchMode()
	canceled := false
	err := p.await(th, deadline, request, func(s stop) bool {
		if s.Event != 0 || s.Sig != p.stopSig && s.Sig != syscallStop {
			return false
		}
		r, err := ptraceGetRegs(th.Tid)
		if err != nil || !loopEnded(&r, p.scratch.base) {
			return false
		}
		if s.Sig == p.stopSig || canceled {
			return true
		}
		// The stop before the last call, which only marks the end: cancel
		// it and go on to the stop behind it. Registers set here would be
		// taken for another call to make.
		r.OrigRax = amd64.NoSyscall
		canceled = ptraceSetRegs(th.Tid, &r) == nil
		return false
	})
	b := make([]byte, c.n*CallSize)
	if e := p.Read(th.slot.calls, b); e == nil {
		takeResults(c.Calls[:c.n], b)
	} else if err == nil {
		err = e
	}
	if err != nil {
		return c.failed(err)
	}
	c.Calls = c.Calls[c.n:]
	return nil
}

// failed names the call at which a batch ended.
func (c *cursor) failed(err error) error {
	out := &BatchError{Tid: c.Thread.Tid, Call: -1, Cause: err}
	var seen *BatchError
	if errors.As(err, &seen) {
		out.Signal, out.Cause = seen.Signal, nil
	}
	for i := range c.Calls {
		if c.Calls[i].Ret == retPending {
			out.Call, out.Nr = i, c.Calls[i].Nr
			break
		}
	}
	return out
}
