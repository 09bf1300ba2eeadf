// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotFrame means that the process execed something else than the frame program.
var ErrNotFrame = errors.New("the process did not exec the frame program")

// AttachFrame seizes the init of a created, not yet started container, to
// catch its exec of the frame program (FrameFile): WaitExec must follow
// before anything else works. Until Commit the frame dies with the tracer.
func (t *Tracer) AttachFrame(_ context.Context, o Options) (*Process, error) {
	p := &Process{Pid: o.Pid, Tracer: t, opts: o, ptOpts: frameOptions, frame: true, memFD: -1}
	err := t.Do(func() error {
		err := ptraceSeize(o.Pid, p.ptOpts|optSuspendSeccomp)
		if err != nil {
			if ok, why := p.seizable(o.Pid); why != nil {
				return why
			} else if !ok {
				return ErrExited
			}
			return fmt.Errorf("%w: %w", ErrSeccomp, err)
		}
		p.ptOpts |= optSuspendSeccomp
		p.threads = []*Thread{{Tid: o.Pid, p: p, running: true}}
		t.procs[p] = struct{}{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("seize frame %d: %w", o.Pid, err)
	}
	return p, nil
}

// WaitExec lets the frame run until it has execed the frame program and
// stops it there. Signals on the way are passed on. It waits until the
// context ends, in short turns, so that the tracer serves others meanwhile.
func (p *Process) WaitExec(ctx context.Context) error {
	for {
		var done bool
		err := p.do(func() (err error) { done, err = p.towardsExec(ctx); return err })
		if err != nil {
			return fmt.Errorf("wait for frame %d to exec: %w", p.Pid, err)
		}
		if done {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for frame %d to exec: %w", p.Pid, err)
		}
	}
}

const execTurn = 2 * time.Millisecond

func (p *Process) towardsExec(ctx context.Context) (bool, error) {
	if len(p.threads) == 0 {
		return false, ErrExited
	}
	th := p.threads[0]
	s, err := waitStop(th.Tid, newPace(ctx, time.Now().Add(execTurn)))
	switch {
	case errors.Is(err, ErrNoStop), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false, nil
	case errors.Is(err, ErrExited):
		p.drop(th)
		return false, err
	case err != nil:
		return false, err
	}
	if s.Event == unix.PTRACE_EVENT_EXEC {
		return true, p.settle(th)
	}
	sig := 0
	if s.Event == 0 && s.Sig != syscallStop {
		sig = s.Sig
	}
	return false, gone(ptraceCont(th.Tid, sig))
}

// settle moves a thread from the exec event, which lies inside execve and
// would overwrite rax, to a stop before its first instruction.
func (p *Process) settle(th *Thread) error {
	if err := ptraceInterrupt(th.Tid); err != nil {
		return gone(err)
	}
	if err := ptraceCont(th.Tid, 0); err != nil {
		return gone(err)
	}
	s, err := waitStop(th.Tid, newPace(context.Background(), time.Now().Add(DefaultTimeout)))
	if err != nil {
		return err
	}
	th.stopped(s)
	p.ptOpts &^= unix.PTRACE_O_TRACEEXEC
	if err := ptraceOptions(th.Tid, p.ptOpts); err != nil {
		return gone(err)
	}
	code := make([]byte, len(frameCode))
	if err := p.Read(FrameBase+frameEntry, code); err != nil {
		return fmt.Errorf("%w: %w", ErrNotFrame, err)
	}
	if !bytes.Equal(code, frameCode) {
		return ErrNotFrame
	}
	return p.inspect()
}

// AvoidSignals tells, for a frame, which signals may be pending in its
// threads (bit n-1 for signal n), beside those told before, so that batches
// end with another one.
func (p *Process) AvoidSignals(mask uint64) error {
	return p.do(func() error {
		if !p.frame {
			return errors.New("tracer: AvoidSignals is for frames")
		}
		// In a frame our own signal is never delivered, so any will do that
		// can be blocked and is not forced by faults.
		p.avoidSigs |= mask
		s := signalSets{Pending: p.avoidSigs, Ignored: blockAll}
		sig, _ := stopSignal(s)
		if sig == 0 {
			return fmt.Errorf("tracer: frame %d: every usable signal may be pending", p.Pid)
		}
		p.stopSig, p.stopSigBlocked = sig, false
		return nil
	})
}

// AdoptThreads takes in threads that remote clone3 calls with CLONE_PTRACE
// made in this process, by their ids in the innermost pid namespace, and
// returns them in that order. They stop before their first instruction, with
// the registers and mask of the injection that made them: SetRegisters and
// SetSignalMask must follow.
func (p *Process) AdoptThreads(nsTids []int) (threads []*Thread, err error) {
	err = p.do(func() error {
		hostTid := p.hostTids()
		for _, ns := range nsTids {
			tid, err := hostTid(ns)
			if err != nil {
				return fmt.Errorf("thread %d of frame %d: %w", ns, p.Pid, err)
			}
			th, err := p.adopt(tid)
			if err != nil {
				return err
			}
			threads = append(threads, th)
		}
		p.sortThreads()
		return nil
	})
	return threads, err
}

// hostTids returns what translates ids of new threads to the host's.
func (p *Process) hostTids() func(int) (int, error) {
	var listed map[int]int
	return func(ns int) (int, error) {
		tid, err := p.pidns.translate(p.via(), nsGetPidFromPidns, ns)
		if !errors.Is(err, errOld) {
			return tid, err
		}
		if listed == nil {
			if listed, err = p.newTasks(); err != nil {
				return 0, err
			}
		}
		if tid, ok := listed[ns]; ok {
			return tid, nil
		}
		return 0, ErrExited
	}
}

// newTasks maps innermost to host ids for threads not known yet. It is for
// kernels that do not translate ids.
func (p *Process) newTasks() (map[int]int, error) {
	tids, err := listTasks(p.Pid)
	if err != nil {
		return nil, err
	}
	known := make(map[int]bool, len(p.threads))
	for _, th := range p.threads {
		known[th.Tid] = true
	}
	host := make(map[int]int)
	for _, tid := range tids {
		if known[tid] {
			continue
		}
		st, err := readStatus(p.Pid, tid)
		if err != nil {
			return nil, err
		}
		host[st.NSTid] = tid
	}
	return host, nil
}

// adopt waits for the first stop of a task that was born traced.
func (p *Process) adopt(tid int) (*Thread, error) {
	th := &Thread{Tid: tid, p: p, running: true}
	turns := newPace(context.Background(), p.batchDeadline())
	turns.idle = func() error { return p.buryDead(th) } // it may be dead, and wait for others
	s, err := waitStop(tid, turns)
	if err != nil {
		return nil, fmt.Errorf("new task %d (was it made with CLONE_PTRACE?): %w", tid, err)
	}
	th.stopped(s)
	if err := th.load(false); err != nil {
		return nil, err
	}
	p.threads = append(p.threads, th)
	return th, nil
}

// AdoptChild takes in a process that a remote clone3 with CLONE_PTRACE and
// without CLONE_VM made in this frame, as its child or, with CLONE_PARENT, as
// its sibling; nsPid is its id in its innermost pid namespace. It lives on the
// same Tracer and has its own copy of the scratch area, at the same addresses.
// Blocks allocated before stay allocated.
func (p *Process) AdoptChild(nsPid int) (child *Process, err error) {
	return p.adoptProcess(nsPid, (*Process).copyScratch)
}

// AdoptSharer is AdoptChild for one that was made with CLONE_VM. It has a scratch
// area of its own, with nothing in it.
func (p *Process) AdoptSharer(nsPid int) (child *Process, err error) {
	return p.adoptProcess(nsPid, (*Process).shareSpace)
}

// copyScratch tells a copy of the process of the scratch area that it has.
func (p *Process) copyScratch(c *Process) error {
	if p.scratch != nil {
		s := *p.scratch
		s.p = c
		s.internal.extents = slices.Clone(s.internal.extents)
		s.user.extents = slices.Clone(s.user.extents)
		c.scratch = &s
	}
	return nil
}

func (p *Process) adoptProcess(nsPid int, equip func(p, child *Process) error) (child *Process, err error) {
	err = p.do(func() error {
		pid, err := p.childPid(nsPid)
		if err != nil {
			return err
		}
		c := &Process{
			Pid: pid, NSPid: nsPid, Tracer: p.Tracer, opts: p.opts, ptOpts: p.ptOpts, frame: p.frame, memFD: -1,
			caught: p.caught, ignored: p.ignored, stopSig: p.stopSig, avoidSigs: p.avoidSigs,
		}
		c.opts.Avoid = slices.Clip(c.opts.Avoid) // both may append to it
		th, err := c.adopt(pid)
		if err != nil {
			return err
		}
		c.boot = boot{thread: th, code: p.boot.code, frame: p.boot.frame}
		p.Tracer.procs[c] = struct{}{}
		if err := equip(p, c); err != nil {
			return errors.Join(err, c.kill())
		}
		child = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("adopt child %d of frame %d: %w", nsPid, p.Pid, err)
	}
	return child, nil
}

// childPid finds the host id of a child, whichever thread made it, or of a
// sibling.
func (p *Process) childPid(nsPid int) (int, error) {
	for _, th := range p.threads {
		if pid := newestChild(p.Pid, th.Tid, nsPid); pid != 0 {
			return pid, nil
		}
	}
	st, err := readStatus(p.Pid, p.Pid)
	if err != nil {
		return 0, err
	}
	if pid := newestChild(st.PPid, st.PPid, nsPid); pid != 0 {
		return pid, nil
	}
	return 0, ErrExited
}

// newestChild is a thread's youngest child that has the id nsPid in its
// innermost pid namespace, 0 if there is none. The kernel lists the oldest
// first, so of many children few are looked at.
func newestChild(pid, tid, nsPid int) int {
	pids, err := listChildren(pid, tid)
	if err != nil {
		return 0
	}
	for _, child := range slices.Backward(pids) {
		if st, err := readStatus(child, child); err == nil && st.NSTid == nsPid {
			return child
		}
	}
	return 0
}
