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

// prepare gives th a slot with a current frame; the frame is written with out.
func (p *Process) prepare(th *Thread, out *gather) error {
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
		b := f.encode(th.slot.frame, s.restorer)
		if th != p.boot.thread {
			out.add(th.slot.frame, b)
		} else if err := p.Write(th.slot.frame, b); err != nil { // the area grows by it
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

// window is how many threads run at the same time: enough for all processors
// while the tracer starts and collects others, and few enough that those which
// are collected first have ended by then.
const window = 512

// cursor is the progress of one batch.
type cursor struct {
	Batch
	n   int   // calls in flight
	err error // of the wait for their end
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
	for len(work) > 0 {
		left := work[:0]
		for rest := work; len(rest) > 0; {
			now := rest[:min(window, len(rest))]
			rest = rest[len(now):]
			if err := p.runSome(now); err != nil {
				return err
			}
			for _, c := range now {
				if len(c.Calls) > 0 {
					left = append(left, c)
				}
			}
		}
		work = left
	}
	return nil
}

// runSome runs the next calls of some batches at the same time, and returns
// when all of them have ended.
func (p *Process) runSome(work []cursor) error {
	if !p.frame {
		threads := make([]*Thread, len(work))
		for i := range work {
			threads[i] = work[i].Thread
		}
		p.loadRseqs(threads)
	}
	var out gather
	for i := range work { // before any runs: the area grows by a call of its own thread
		if err := p.makeRoom(&work[i], &out); err != nil {
			return fmt.Errorf("prepare batch in task %d: %w", work[i].Thread.Tid, err)
		}
	}
	if err := p.writeAll(&out); err != nil {
		for i := range work {
			work[i].Thread.prepared = false
		}
		return err
	}
	var errs []error
	started := 0
	for i := range work {
		if err := p.start(&work[i]); err != nil {
			errs = append(errs, fmt.Errorf("start batch in task %d: %w", work[i].Thread.Tid, err))
			break
		}
		started++
	}
	deadline := p.batchDeadline()
	for i := range work[:started] {
		work[i].err = p.collect(&work[i], deadline)
	}
	return errors.Join(append(errs, p.takeAll(work[:started]))...)
}

// makeRoom gives the batch's thread a frame and a slot with the next calls. No
// thread may be running.
func (p *Process) makeRoom(c *cursor, out *gather) error {
	th, s := c.Thread, p.scratch
	if th.p != p {
		return fmt.Errorf("task %d belongs to another process", th.Tid)
	}
	if err := p.prepare(th, out); err != nil {
		return err
	}
	if want := min(len(c.Calls), maxCalls) + 1; want > th.slot.cap {
		addr, err := s.from(&s.internal, want*CallSize)
		if err != nil {
			return err
		}
		th.slot.calls, th.slot.cap = addr, want
	}
	c.n = min(len(c.Calls), th.slot.cap-1)
	b := appendCalls(make([]byte, 0, (c.n+1)*CallSize), c.Calls[:c.n])
	out.add(th.slot.calls, appendCalls(b, []Call{p.lastCall(th)}))
	return nil
}

// start sets a batch's thread going.
func (p *Process) start(c *cursor) error {
	th := c.Thread
	mask, request := p.batchMode()
	if err := th.enter(th.guardRegisters(loopRegisters(th.regs, p.scratch.base, th.slot.calls, c.n+1, th.slot.frame)), mask); err != nil {
		return err
	}
	return th.resumeWith(request, 0)
}

// loopCall makes one call in th by a loop that looks at the guard, as part of
// whatever else is done: calls and frame are where its array and its way back lie.
// It leaves the thread behind the call.
func (p *Process) loopCall(th *Thread, calls, frame uint64, c *Call) error {
	one := []Call{*c, p.lastCall(th)}
	b := appendCalls(nil, one)
	if err := p.Write(calls, b); err != nil {
		return err
	}
	mask, request := p.batchMode()
	if err := th.enter(th.guardRegisters(loopRegisters(th.regs, p.scratch.base, calls, len(one), frame)), mask); err != nil {
		return err
	}
	if err := th.resumeWith(request, 0); err != nil {
		return err
	}
	work := cursor{Batch: Batch{th, one[:1]}, n: 1}
	err := p.collect(&work, p.batchDeadline())
	if e := p.Read(calls, b[:CallSize]); err == nil {
		err = e
	}
	takeResults(one[:1], b)
	c.Ret = one[0].Ret
	if err != nil {
		return work.failed(err)
	}
	return nil
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

// collect waits for the end of what start began.
func (p *Process) collect(c *cursor, deadline time.Time) error {
	th := c.Thread
	_, request := p.batchMode()
	canceled := false
	return p.await(th, deadline, request, func(s stop) bool {
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
}

// takeAll takes the results of batches that have ended, well or not, and moves
// on to their next calls.
func (p *Process) takeAll(work []cursor) error {
	var in gather
	for i := range work {
		in.add(work[i].Thread.slot.calls, make([]byte, work[i].n*CallSize))
	}
	whole := p.readAll(&in)
	var errs []error
	for i := range work {
		c := &work[i]
		err := whole
		if err != nil { // some may be there all the same
			err = p.Read(c.Thread.slot.calls, in.local[i])
		}
		if err == nil {
			takeResults(c.Calls[:c.n], in.local[i])
		}
		if c.err != nil {
			err = c.err
		}
		if err != nil {
			errs = append(errs, c.failed(err))
			continue
		}
		c.Calls = c.Calls[c.n:]
	}
	return errors.Join(errs...)
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
