// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// Detach unmaps the scratch area, puts registers, masks and memory back and
// lets the process run on as if nothing had happened; a group-stopped one
// stays stopped. For a frame call Release and Commit first.
func (p *Process) Detach() error {
	return p.do(func() error {
		if err := p.leave(); err != nil {
			return fmt.Errorf("detach from process %d: %w", p.Pid, err)
		}
		return nil
	})
}

// Leave is for an error at any stage: it does what Detach does, goes on
// after failures, and always lets the process run (a frame that is not
// committed is killed instead). It may follow a failed Detach, and reports
// what could not be put back.
func (p *Process) Leave() error {
	err := p.Tracer.Do(func() error {
		if p.closed {
			return nil
		}
		return p.quit()
	})
	if err != nil && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("leave process %d: %w", p.Pid, err)
	}
	return nil
}

// quit kills an uncommitted frame and leaves anything else.
func (p *Process) quit() error {
	if p.frame && p.ptOpts&unix.PTRACE_O_EXITKILL != 0 {
		return p.kill()
	}
	return p.leave()
}

// stuckWait is how long leave waits for a thread that is in a remote call.
const stuckWait = 2 * time.Second

// Withdraw is the first half of Detach: everything is put back, but the
// threads stay stopped. Whoever has to freeze them before they are let go does
// it between Withdraw and Detach; no remote call is possible any more.
func (p *Process) Withdraw() error {
	return p.do(func() error {
		var errs []error
		p.withdraw(func(err error) {
			if err != nil && !errors.Is(err, ErrExited) {
				errs = append(errs, err)
			}
		})
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("withdraw from process %d: %w", p.Pid, err)
		}
		return nil
	})
}

// withdraw ends every injection. Nothing is left to do the second time.
func (p *Process) withdraw(note func(error)) {
	for _, th := range p.live() {
		if th.running && th.entered {
			note(p.halt(th))
		}
	}
	for _, th := range p.live() {
		if th.entered && !th.running && (th != p.boot.thread || p.scratch == nil) {
			note(p.finish(th))
		}
	}
	if p.stuck() {
		p.dropGuard()
		// It finds its way back by itself, but through the scratch area,
		// which therefore stays: a leftover for our successor to clear.
		note(fmt.Errorf("%w: a remote call does not return, the scratch area stays mapped", ErrScratch))
		if th := p.boot.thread; th != nil && !th.gone && !th.running {
			note(p.finish(th))
		}
	} else {
		note(p.unmapScratch())
	}
}

func (p *Process) leave() error {
	var errs []error
	note := func(err error) {
		if err != nil && !errors.Is(err, ErrExited) {
			errs = append(errs, err)
		}
	}
	p.withdraw(note)
	for _, th := range p.live() {
		if th.running {
			p.Tracer.letGoLater(p, th)
			continue
		}
		if th.regs == (amd64.Registers{}) {
			note(p.loadUnseen(th))
		}
		note(p.finish(th)) // those never entered: hide the stop
		if err := ptraceDetach(th.Tid, th.held); err != nil {
			if _, e := peekStop(th.Tid); errors.Is(e, ErrExited) {
				p.drop(th)
			} else {
				p.Tracer.letGoLater(p, th)
			}
		}
	}
	p.forget()
	return errors.Join(errs...)
}

// loadUnseen reads what finish needs when Attach failed before inspect.
func (p *Process) loadUnseen(th *Thread) error {
	st, err := readStatus(p.Pid, th.Tid)
	if err != nil {
		return err
	}
	p.caught = st.Signals.Caught
	return th.load(true)
}

// stuck says whether a thread runs in injected code.
func (p *Process) stuck() bool {
	for _, th := range p.threads {
		if th.running && th.entered {
			return true
		}
	}
	return false
}

// abandon undoes a failed Attach.
func (p *Process) abandon() { _ = p.leave() }

// live is a copy of the threads: leaving drops those that are gone.
func (p *Process) live() []*Thread { return append([]*Thread(nil), p.threads...) }

func (p *Process) forget() {
	p.dropGuard()
	p.quitSpace()
	p.closed, p.threads = true, nil
	delete(p.Tracer.procs, p)
	p.pidns.close()
	if p.memFD >= 0 {
		_ = unix.Close(p.memFD)
		p.memFD = -1
	}
}

// halt stops a thread that did not come back from a remote call.
func (p *Process) halt(th *Thread) error {
	if err := ptraceInterrupt(th.Tid); err != nil {
		return gone(err)
	}
	_, err := waitStop(th.Tid, newPace(context.Background(), time.Now().Add(stuckWait)))
	if errors.Is(err, ErrExited) {
		p.drop(th)
		return nil
	}
	if err != nil {
		return p.noStop(th)
	}
	th.running = false
	return nil
}

// letGoLater detaches a thread when it stops at last: PTRACE_DETACH needs a
// stop, and a vfork parent reports its pending one only after its child has
// execed. A goroutine looks every millisecond while there are such threads.
func (t *Tracer) letGoLater(p *Process, th *Thread) {
	_ = ptraceInterrupt(th.Tid) // it may be another thread by now, after an exec
	if th.Tid != p.Pid {
		t.undertaker.watch(th.Tid)
	}
	t.late = append(t.late, lateThread{p, th})
	if len(t.late) > 1 {
		return
	}
	go func() {
		for {
			time.Sleep(time.Millisecond)
			more := false
			if t.Do(func() error { more = t.letGo(); return nil }) != nil || !more {
				return
			}
		}
	}()
}

type lateThread struct {
	p  *Process
	th *Thread
}

// letGo detaches the late threads that have stopped and says whether there
// are more.
func (t *Tracer) letGo() bool {
	left := t.late[:0]
	for _, l := range t.late {
		s, err := peekStop(l.th.Tid)
		switch {
		case errors.Is(err, ErrExited):
			l.p.drop(l.th)
		case err != nil:
			if !errors.Is(ptraceInterrupt(l.th.Tid), unix.ESRCH) {
				left = append(left, l) // else: not our tracee any more
			}
		default:
			if l.th.running {
				l.th.stopped(s)
			}
			if !l.th.entered && l.p.loadUnseen(l.th) == nil {
				_ = l.p.finish(l.th)
			}
			if ptraceDetach(l.th.Tid, l.th.held) != nil {
				left = append(left, l)
			}
		}
	}
	t.late = left
	return len(left) > 0
}

// killPatience is how long a killed process may take to end, less than control
// gives a call of undoing (control.DefaultUndo). It runs no code of its own
// meanwhile, but gives back its memory, and its last thread waits for a grace
// period of the kernel before it lets its mount namespace go (fs/namespace.c,
// namespace_unlock): on a machine that has much to do, with others who wait for
// the same, that takes many seconds.
const killPatience = 25 * time.Second

// Kill kills the process and takes the exit status of its traced threads, also of
// those that were not adopted, and of children that were not: until then the
// leader's end is not reported to its parent.
func (p *Process) Kill() error { return p.do(p.kill) }

// Doom kills it without waiting for its end: it runs no code any more, whoever lets go
// of it.
func (p *Process) Doom() error { return p.do(p.doom) }

func (p *Process) doom() error {
	// Without threads it is dead, and its id may be another's.
	if len(p.threads) > 0 {
		if err := unix.Kill(p.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", p.Pid, err)
		}
	}
	return nil
}

func (p *Process) kill() error {
	if err := p.doom(); err != nil {
		return err
	}
	begun, ours := time.Now(), p.isOurChild()
	look := strayWait
	// In rotation: which thread of a pid namespace's init ends first is not
	// ours to say.
	for pause := 50 * time.Microsecond; len(p.threads) > 0; pause = min(2*pause, time.Millisecond) {
		p.dropDead(ours)
		waited := time.Since(begun)
		if waited > killPatience {
			return fmt.Errorf("kill process %d: it runs no code any more, but has not ended within %s: %s: %w", p.Pid, killPatience, p.lingering(), ErrNoStop)
		}
		if len(p.threads) > 0 && waited > look {
			look = 2 * waited
			if p.endStrays() {
				look = waited + strayWait // what waited for them may have been the next
			}
		}
		if len(p.threads) > 0 {
			time.Sleep(pause)
		}
	}
	p.forget()
	return nil
}

// strayWait is how long kill waits before it looks for strays, which takes a few
// reads of /proc for each thread. It looks again whenever it has waited twice as
// long.
const strayWait = time.Millisecond

// lingering says for a person what the threads wait for that do not end: their
// state, and the function of the kernel in which they sleep (proc(5)).
func (p *Process) lingering() string {
	var said []string
	for _, th := range p.threads {
		st, err := readStatus(p.Pid, th.Tid)
		if err != nil {
			said = append(said, fmt.Sprintf("task %d: %v", th.Tid, err))
			continue
		}
		where, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/wchan", p.Pid, th.Tid))
		if err != nil || len(where) == 0 {
			where = []byte("0")
		}
		said = append(said, fmt.Sprintf("task %d is in state %c at %s, traced by %d", th.Tid, st.State, where, st.TracerPid))
		// A pid namespace's first process waits for those that it has got.
		list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.Pid, th.Tid))
		for _, child := range strings.Fields(string(list)) {
			pid, _ := strconv.Atoi(child)
			if st, err := readStatus(pid, pid); err == nil {
				said = append(said, fmt.Sprintf("its child %d is in state %c, traced by %d", pid, st.State, st.TracerPid))
			}
		}
	}
	return strings.Join(said, "; ")
}
