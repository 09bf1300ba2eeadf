// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Attach seizes every thread of a running process, stops them and returns
// when no thread is left out. On error nothing stays attached and the
// process runs on, or stays group-stopped, as before. Errors to tell apart:
// ErrTraced, ErrVfork, ErrNoStop, Err32Bit, ErrUserDispatch, ErrSeccomp,
// ErrShadowStack, ErrExited, ErrBusy.
func (t *Tracer) Attach(ctx context.Context, o Options) (*Process, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	deadline := time.Now().Add(o.Timeout)
	var p *Process
	err := t.Do(func() (err error) {
		for {
			p, err = t.attachOnce(ctx, o, deadline)
			if !errors.Is(err, ErrBusy) || time.Now().After(deadline) || ctx.Err() != nil {
				return err
			}
			time.Sleep(time.Millisecond) // the injection ends by itself
		}
	})
	if err != nil {
		return nil, fmt.Errorf("attach to process %d: %w", o.Pid, err)
	}
	return p, nil
}

func (t *Tracer) attachOnce(ctx context.Context, o Options, deadline time.Time) (*Process, error) {
	t.letGo()
	p := &Process{Pid: o.Pid, Tracer: t, opts: o, ptOpts: sourceOptions, memFD: -1}
	err := p.stopAll(ctx, deadline)
	if err == nil {
		p.StoppedAt = int64(monotonic())
		err = p.inspect()
	}
	if err != nil {
		p.abandon()
		if errors.Is(err, ErrExited) && p.alive() {
			// One thread went while we looked, by an exec for example.
			err = fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return nil, err
	}
	t.undertaker.forget(p.threads)
	t.procs[p] = struct{}{}
	return p, nil
}

// alive says whether there is more than a dead leader. In an execve by
// another thread the leader is dead for a moment.
func (p *Process) alive() bool {
	if tids, err := listTasks(p.Pid); err == nil && len(tids) > 1 {
		return true
	}
	st, err := readStatus(p.Pid, p.Pid)
	return err == nil && st.State != 'Z' && st.State != 'X'
}

// stopAll seizes and interrupts until every thread is stopped and none is
// unknown. A listing made while all known threads are stopped proves that:
// only a thread we did not know could have made another.
func (p *Process) stopAll(ctx context.Context, deadline time.Time) error {
	thaw := p.opts.Thaw
	for {
		fresh, err := p.seizeNew()
		if err != nil {
			return err
		}
		late := time.Now().After(deadline)
		if fresh > 0 && thaw != nil && !late {
			continue // frozen: list until stable before anyone may run
		}
		if thaw != nil {
			if err := thaw(); err != nil {
				return fmt.Errorf("thaw: %w", err)
			}
			thaw = nil
		} else if fresh == 0 && len(p.threads) > 0 {
			p.withoutLeader()
			return nil
		} else if fresh == 0 {
			// Its leader is dead and its threads are about to be.
			if tids, err := listTasks(p.Pid); err != nil || len(tids) <= 1 {
				return cmp.Or(err, ErrExited)
			}
			time.Sleep(time.Millisecond)
		}
		if err := p.awaitStops(ctx, deadline); err != nil {
			return err
		}
		if late {
			return fmt.Errorf("%w: process %d makes threads faster than they can be stopped; freeze its cgroup first", ErrNoStop, p.Pid)
		}
	}
}

// seizeNew seizes and interrupts all threads not known yet.
func (p *Process) seizeNew() (fresh int, err error) {
	tids, err := listTasks(p.Pid)
	if err != nil {
		return 0, err
	}
	known := make(map[int]bool, len(p.threads))
	for _, th := range p.threads {
		known[th.Tid] = true
	}
	for _, tid := range tids {
		if known[tid] {
			continue
		}
		ok, err := p.seize(tid)
		if err != nil {
			return fresh, err
		}
		if ok {
			fresh++
		}
	}
	p.sortThreads()
	return fresh, nil
}

// seize takes one thread. A thread that is gone meanwhile is no error.
func (p *Process) seize(tid int) (bool, error) {
	suspended, err := p.trySeize(tid)
	for try := 0; err != nil; try++ {
		if p.execed(tid) {
			suspended = true // with the options that it was seized with
			break
		}
		ok, why := p.seizable(tid)
		if !ok {
			return false, why
		}
		if try == 5 {
			return false, fmt.Errorf("seize task %d (CAP_SYS_PTRACE is needed): %w", tid, err)
		}
		// It may have been a zombie when we asked and, at the end of an
		// execve, not any more when we looked.
		time.Sleep(time.Millisecond)
		suspended, err = p.trySeize(tid)
	}
	p.threads = append(p.threads, &Thread{Tid: tid, p: p, running: true})
	if tid != p.Pid {
		p.Tracer.undertaker.watch(tid)
	}
	if !suspended {
		if st, err := readStatus(p.Pid, tid); err == nil && st.Seccomp != 0 {
			return true, fmt.Errorf("task %d: %w", tid, ErrSeccomp)
		}
	}
	if err := ptraceInterrupt(tid); err != nil && !errors.Is(err, unix.ESRCH) {
		return true, fmt.Errorf("interrupt task %d: %w", tid, err)
	}
	return true, nil
}

// trySeize seizes with seccomp suspended, or else without.
func (p *Process) trySeize(tid int) (suspended bool, err error) {
	if ptraceSeize(tid, p.ptOpts|optSuspendSeccomp) == nil {
		p.ptOpts |= optSuspendSeccomp
		return true, nil
	}
	return false, ptraceSeize(tid, p.ptOpts&^optSuspendSeccomp)
}

// execed: a thread that we had seized goes on as the leader, by an exec while its
// old leader was dead and not one of ours.
func (p *Process) execed(tid int) bool {
	if tid != p.Pid || slices.ContainsFunc(p.Tracer.late, func(l lateThread) bool { return l.th.Tid == tid }) {
		return false
	}
	st, err := readStatus(p.Pid, tid)
	return err == nil && st.TracerPid == p.Tracer.tid && st.State != 'Z' && st.State != 'X'
}

// seizable explains a refused SEIZE: false without an error means that the
// thread is gone.
func (p *Process) seizable(tid int) (bool, error) {
	st, err := readStatus(p.Pid, tid)
	switch {
	case errors.Is(err, ErrExited):
		return false, nil
	case err != nil:
		return false, err
	case st.State == 'Z' || st.State == 'X':
		// Also a leader: either its threads are about to end, or it has ended
		// alone, which those tell that come to a stop.
		return false, nil
	case st.TracerPid == p.Tracer.tid:
		// Let go by an earlier handle, but it has not stopped since.
		return false, fmt.Errorf("task %d: %w", tid, ErrBusy)
	case st.TracerPid != 0:
		return false, &TracedError{Tid: tid, TracerPid: processOf(st.TracerPid)}
	}
	return true, nil
}

// awaitStops waits until each thread has stopped or is gone. In rotation: a
// thread in execve, for one, stops only after its siblings have died and we
// have taken their status.
func (p *Process) awaitStops(ctx context.Context, deadline time.Time) error {
	turns := newPace(ctx, deadline)
	// A thread that execs before it is interrupted goes on under the
	// leader's id, traced but not interrupted: ask again. If one that we
	// did not know execed, the leader's id is not ours any more; where it is
	// our own child, waiting for it does not say so, but this does.
	turns.idle = func() error {
		for _, th := range p.live() {
			if th.running && (errors.Is(ptraceInterrupt(th.Tid), unix.ESRCH) || th.Tid == p.Pid && p.leaderEnded()) {
				p.drop(th)
			}
		}
		return nil
	}
	for {
		var waiting *Thread
		p.Tracer.letGo()
		for _, th := range p.live() {
			if !th.running {
				continue
			}
			s, err := peekStop(th.Tid)
			switch {
			case errors.Is(err, errPending):
				waiting = th
			case errors.Is(err, ErrExited):
				p.drop(th)
			case err != nil:
				return fmt.Errorf("wait for task %d to stop: %w", th.Tid, err)
			default:
				th.stopped(s)
			}
		}
		if waiting == nil {
			return nil
		}
		if err := turns.wait(); errors.Is(err, ErrNoStop) {
			return p.noStop(waiting)
		} else if err != nil {
			return fmt.Errorf("wait for task %d to stop: %w", waiting.Tid, err)
		}
	}
}

// leaderEnded: a leader that has ended before its threads is reported to
// nobody.
func (p *Process) leaderEnded() bool {
	st, err := readStatus(p.Pid, p.Pid)
	return err == nil && st.State == 'Z'
}

// stopped records how the thread stopped.
func (th *Thread) stopped(s stop) {
	th.running = false
	switch {
	case s.Event == eventStop && isStopSignal(s.Sig):
		th.Stopped = s.Sig
	case s.Event == 0 && s.Sig != syscallStop:
		// A signal was on its way. The kernel has taken it from the queue;
		// we pass it on with the first resume or the detach.
		th.held = s.Sig
		th.info, _ = ptraceSiginfo(th.Tid)
	}
}

func isStopSignal(sig int) bool {
	switch unix.Signal(sig) {
	case unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		return true
	}
	return false
}

// inspect reads what every later step needs and refuses what cannot work.
func (p *Process) inspect() error {
	leader, err := readStatus(p.Pid, p.via())
	if err != nil {
		return err
	}
	if leader.ShadowStk {
		return ErrShadowStack
	}
	hostNamespace := leader.NSTid == p.via()
	if p.leaderless {
		group, err := readStatus(p.Pid, p.Pid)
		if err != nil {
			return err
		}
		leader.NSTid = group.NSTid
	}
	p.NSPid, p.caught, p.ignored = leader.NSTid, leader.Signals.Caught, leader.Signals.Ignored
	p.seccomp = leader.Seccomp != 0
	var blocked uint64
	for _, th := range p.threads {
		if err := th.load(hostNamespace); err != nil {
			return err
		}
		if d, err := ptraceUserDispatch(th.Tid); err == nil && d.mode != 0 {
			return fmt.Errorf("task %d: %w", th.Tid, ErrUserDispatch)
		}
		blocked |= th.mask
	}
	leader.Signals.Blocked |= blocked
	p.stopSig, p.stopSigBlocked = stopSignal(leader.Signals)
	return p.findLeftovers()
}

// load reads registers, mask and namespace id of a stopped thread.
func (th *Thread) load(hostNamespace bool) (err error) {
	if th.regs, err = ptraceGetRegs(th.Tid); err != nil {
		return fmt.Errorf("registers of task %d: %w", th.Tid, gone(err))
	}
	if th.regs.Is32Bit() {
		return fmt.Errorf("task %d: %w", th.Tid, Err32Bit)
	}
	if th.mask, err = ptraceGetMask(th.Tid); err != nil {
		return fmt.Errorf("signal mask of task %d: %w", th.Tid, gone(err))
	}
	th.NSTid = th.Tid
	if !hostNamespace {
		if th.NSTid, err = th.p.innerTid(th.Tid); err != nil {
			return err
		}
	}
	r, hide := th.p.hideStop(th, th.regs)
	if hide && !th.entered {
		if err := ptraceSetRegs(th.Tid, &r); err != nil {
			return gone(err)
		}
		th.hidden = true
	}
	return nil
}

// gone names the error of a request to a task that was killed in its stop.
func gone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w (%v)", ErrExited, err)
	}
	return err
}
