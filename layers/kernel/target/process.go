// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
)

// Process is one process of the source: stopped between Setup and Restart or
// Cleanup. It is control's constructor set for it (the paper's Table 3).
type Process struct {
	ID record.ProcessID
	// Pid is its task in the engine's pid namespace by which it is looked at
	// (Living), Proc that one's files in /proc. Group is what the process is called
	// by: the id of its leader.
	Pid, Group int
	Proc       procfs.Task
	// Traced gives remote calls, registers and memory. nil unless stopped.
	Traced *tracer.Process
	// Ahead: the destination has this process already, from an early round or as
	// the init that every frame begins with. The subsystem of tasks decides it in
	// its shared step, before the processes' own.
	Ahead bool
	// Incarnation counts how often the destination was told to make it.
	Incarnation int

	source *Source
	tracer *tracer.Tracer
	// idle is the tracer of an earlier stop, for the next: to start a thread takes
	// longer than to stop a process.
	idle *tracer.Tracer
	// running is Proc while the process is not stopped.
	running procfs.Task
	pidfd   int
	// startTime tells a process from a later one with the same pid.
	startTime uint64
	// gone: it ended before it was stopped.
	gone bool
	// relation is known when all processes are stopped, crowded while they run.
	relation        relation
	crowded, lodger atomic.Bool

	mu          sync.Mutex
	setUp       bool           // control holds it, and will call Restart or Cleanup
	attaching   *tracer.Tracer // while attach is under way
	descriptors []Descriptor
	apart       *[]Apart // see Apart; nil: not known
	inFlight    []int    // see addInFlight
	answers     map[*Question][]Answer
	thaw        func() error // given to Attach: see Source.attachFrozen
	closers     []io.Closer  // see OnRelease
}

// newProcess takes hold of a running process by a pidfd, so that everything
// after is about this process and no successor of its pid.
func newProcess(s *Source, group int) (*Process, error) {
	p := &Process{Group: group, source: s, pidfd: -1}
	if err := p.lookBy(living(s.proc, group)); err != nil {
		return nil, err
	}
	st, err := p.Leader().Stat()
	if err != nil {
		unix.Close(p.pidfd)
		return nil, err
	}
	p.startTime = st.StartTime
	return p, nil
}

// born says when it was made.
func (p *Process) born() Born { return Born{p.startTime, p.Group} }

// lookBy chooses the task by which the process is looked at.
func (p *Process) lookBy(tid int) error {
	if p.Pid == tid {
		return nil
	}
	fd, err := Pidfd(tid)
	if err != nil {
		return fmt.Errorf("open a pidfd of pid %d: %w", tid, err)
	}
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
	}
	p.Pid, p.pidfd, p.Proc = tid, fd, p.source.proc.Process(tid)
	if p.Group == p.source.first {
		p.source.Init = tid
	}
	if p.Group != tid {
		p.source.leaderless.Store(true)
	}
	return nil
}

// parent is the task by which the parent is looked at whose id is ppid. One more
// look at every parent would cost as much as all that is asked of it.
func (s *Source) parent(ppid int) int {
	if s.leaderless.Load() {
		return Living(ppid)
	}
	return ppid
}

// Leader reads the leader's files in /proc: what is left of one that has ended
// are its ids and its status.
func (p *Process) Leader() procfs.Task {
	if p.Pid == p.Group {
		return p.Proc
	}
	return p.source.proc.Process(p.Group)
}

// replaced: the process has ended and another one has its pid.
func (p *Process) replaced() bool {
	st, err := p.Leader().Stat()
	return err == nil && st.StartTime != p.startTime
}

// VforkPatience is how long a vfork(2) may take: its child shares the memory of
// a parent that cannot be stopped until the child executes a program or ends.
const VforkPatience = 2 * time.Second

// Setup seizes every thread and stops it. On error nothing is held.
func (p *Process) Setup(ctx context.Context) error {
	if p.Traced == nil { // else Hold had to do it already: the container was frozen
		if err := p.seize(ctx); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setUp = true
	return nil
}

// seize seizes every thread and stops it.
//
// A vfork child is let go again until it has a memory of its own: while it is
// stopped, its parent never stops (ptrace(2) waits for it).
func (p *Process) seize(ctx context.Context) error {
	for deadline := time.Now().Add(VforkPatience); ; {
		err := p.attach(ctx)
		if err != nil || !p.inVfork() || time.Now().After(deadline) {
			return err
		}
		if err := p.letGo(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *Process) attach(ctx context.Context) error {
	t := p.idle
	if p.idle = nil; t == nil {
		t = p.source.spare.take()
	}
	p.setAttaching(t)
	var tr *tracer.Process
	var leader *tracer.Thread
	err := t.Do(func() (err error) { // one visit to its thread
		if tr, err = t.Attach(ctx, tracer.Options{Pid: p.Group, Thaw: p.thaw, Gadgets: &p.source.gadgets}); err == nil {
			leader = tr.Leader()
		}
		return err
	})
	p.setAttaching(nil)
	p.mu.Lock()
	p.answers = nil // of an earlier stop
	p.mu.Unlock()
	p.thaw = nil // the freezer is thawed now, or the event fails
	if err == nil && leader != nil {
		err = p.lookBy(leader.Tid) // threads have come and gone while it ran
	}
	if err != nil {
		return errors.Join(fmt.Errorf("stop pid %d: %w", p.Pid, err), t.Close())
	}
	p.tracer, p.Traced, p.running = t, tr, p.Proc
	p.Proc = p.Proc.Still()
	return nil
}

func (p *Process) setAttaching(t *tracer.Tracer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attaching = t
}

// seizing is the thread for which attach waits in the kernel, 0 if there is
// none.
func (p *Process) seizing() int {
	p.mu.Lock()
	t := p.attaching
	p.mu.Unlock()
	if t == nil {
		return 0
	}
	return t.Seizing()
}

// inVfork: the process runs in the memory of its parent, which waits for it.
func (p *Process) inVfork() bool {
	st, err := p.Proc.Status()
	return err == nil && st.PPid != 0 && inVfork(p.Pid, st.PPid, p.source.parent(st.PPid))
}

// InVfork reports whether a process runs in the memory of its parent, which waits in
// vfork(2) for it to execute a program or to end.
func InVfork(pid int) bool {
	st, err := procfs.Host().Process(pid).Status()
	return err == nil && st.PPid != 0 && inVfork(pid, st.PPid, Living(st.PPid))
}

// inVfork: parent is the process, living the task by which it is looked at.
func inVfork(pid, parent, living int) bool {
	same, err := SharesWith(pid, living, ResourceVM)
	return err == nil && same && tracer.InVfork(parent)
}

// Restart lets the process run on as if nothing had happened. One that was
// paused is let go by Source.Release only, when the container is frozen again:
// it must not run a single instruction in between.
func (p *Process) Restart(context.Context) error {
	if p.Traced == nil {
		return nil
	}
	if err := p.source.beforeRemote(); err != nil {
		return err
	}
	undone := p.source.callOnce(&p.source.beforeRun)
	if p.source.wasFrozen {
		return errors.Join(undone, p.withdraw())
	}
	return errors.Join(undone, p.letGo())
}

// withdraw puts back all that remote calls have changed, and leaves the process
// stopped: it can be let go while it is frozen.
func (p *Process) withdraw() error {
	if err := p.Traced.Withdraw(); err != nil && !errors.Is(err, tracer.ErrExited) {
		return err
	}
	return nil
}

// leftToRelease: Hold had to stop the process, and the event ended before control
// set it up, so that nobody but Release lets it go.
func (p *Process) leftToRelease() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Traced != nil && !p.setUp
}

// letGo detaches from the process.
func (p *Process) letGo() error {
	undone := p.clearHousehold()
	return errors.Join(undone, p.tracer.Do(func() error { // one visit to its thread
		err := p.Traced.Detach()
		if err != nil {
			err = errors.Join(fmt.Errorf("let pid %d run on: %w", p.Pid, err), p.Traced.Leave())
		}
		return errors.Join(err, p.forget())
	}))
}

// Cleanup kills the process. It is gone once the container is thawed and its
// threads are reaped: see Source.Release.
func (p *Process) Cleanup(context.Context) error {
	if p.Traced == nil {
		return nil
	}
	if err := p.source.callOnce(&p.source.beforeKill); err != nil {
		return err
	}
	if err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill pid %d: %w", p.Pid, err)
	}
	p.source.mu.Lock()
	defer p.source.mu.Unlock()
	p.source.killed = append(p.source.killed, p)
	return nil
}

// reap collects the threads of a killed process from its tracer.
func (p *Process) reap() error {
	err := p.Traced.Kill()
	if err != nil && !errors.Is(err, tracer.ErrExited) {
		err = fmt.Errorf("reap pid %d: %w", p.Pid, err)
	} else {
		err = nil
	}
	return errors.Join(err, p.forget())
}

// forget drops what is only true of the stopped process.
func (p *Process) forget() error {
	p.relation = relation{}
	p.mu.Lock()
	p.setUp, p.descriptors, p.apart = false, nil, nil
	p.closeInFlight()
	p.mu.Unlock()
	t := p.tracer
	if t == nil {
		return nil
	}
	p.tracer, p.Traced, p.Proc = nil, nil, p.running
	if t.Free() {
		p.idle = t
		return nil
	}
	return t.Close()
}

// close ends the handle itself.
func (p *Process) close() {
	p.mu.Lock()
	closers := p.closers
	p.closers = nil
	p.mu.Unlock()
	for _, c := range closers {
		_ = c.Close()
	}
	if p.idle != nil {
		_ = p.idle.Close()
		p.idle = nil
	}
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
		p.pidfd = -1
	}
}
