// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
)

// Source is the container that is exported. Its methods Hold, Process, Seal
// and Release are control's view of it.
type Source struct {
	// Init is the container's first process, in the engine's pid namespace, by
	// the task by which it is looked at (Living).
	Init int
	// Freezer is the container's cgroup.
	Freezer *Freezer
	// Cgroups are its own by controller: version 1's under their names, that of
	// the unified hierarchy under "".
	Cgroups map[string]string
	// Stdio are the standard streams as the shim handed them to the init.
	Stdio []StdioFile
	// SeccompFilters is how many filters the spec loads into each process:
	// a restore loads them again, and no others. Set it before Preflight.
	SeccompFilters int
	// Allowed is what the container's spec gives it, nil if that is not known: an
	// import of the image under the same spec may do as much.
	Allowed *Allowed
	// UTS are the names that the spec gives the container's own UTS namespace;
	// nil: it has none of its own.
	UTS *UTSNames
	// Terminal: the container has a terminal of its own (spec.process.terminal).
	Terminal bool
	// Agent: the spec asks for the socket of an application's agent, whose other
	// end is the shim's.
	Agent bool
	// Files are its file systems on this host.
	Files Files
	// OwnIPC: the container has an IPC namespace of its own, which ends with it.
	OwnIPC bool
	// OwnNet: the container has a network namespace of its own; HostNet: it is in
	// the host's. Neither: it is in one that somebody has made.
	OwnNet, HostNet bool
	// SessionKeyring is what the runtime calls the session keyring that it makes
	// for the container; empty: not known.
	SessionKeyring string

	proc    procfs.FS
	first   int // Init's process
	files   identities
	objects objectIDs
	gadgets tracer.Gadgets
	spare   spareTracers

	// leaderless: the leader of some process has ended before other threads.
	leaderless atomic.Bool

	mu        sync.Mutex
	questions []*Question
	processes []*Process // in order of id; ids start at 1
	killed    []*Process
	// wasFrozen: the container was paused when the event began and is to be
	// paused afterwards.
	wasFrozen bool
	sealed    bool
	asked     int // calls of Hold
	// onHeld is what OnHeld was given.
	onHeld []func([]*Process)
	// beforeRun, beforeKill and afterKill are what BeforeRun, BeforeKill and
	// AfterKill were given, nil once called.
	beforeRun, beforeKill, afterKill []func() error

	calling sync.Mutex // held while they are called; taken before mu
}

// UTSNames are a host name and a domain name; empty ones are the host's.
type UTSNames struct{ Host, Domain string }

// NewSource looks at the container whose first process is init. It touches
// nothing.
func NewSource(init int, f *Freezer, stdio []StdioFile) (*Source, error) {
	s := &Source{Init: Living(init), first: init, Freezer: f, Stdio: stdio, proc: procfs.Host()}
	var err error
	if s.wasFrozen, err = f.Frozen(); err != nil {
		return nil, err
	}
	return s, nil
}

// Learn begins to find out, in the background, what a stop needs to know and the
// running container shows, and to start the threads that it needs. Nobody has to
// wait for it. done, called behind Release, ends what nobody has taken.
func (s *Source) Learn() (done func()) {
	init := s.Init
	go s.gadgets.Learn(init)
	go s.startTracers()
	return s.spare.end
}

// freezeAfter is how often the processes are listed and stopped one by one
// before the freezer is used to stop them all: a container that forks faster
// than it can be seized.
const freezeAfter = 3

// Hold lists the container's processes, the init first. New ones may appear
// until all that it named are set up; it is asked until it names no new one.
func (s *Source) Hold(ctx context.Context) ([]record.ProcessID, error) {
	ids, held, err := s.hold(ctx)
	if err == nil && held != nil {
		s.askAll(held)
		s.mu.Lock()
		fns := slices.Clone(s.onHeld)
		s.mu.Unlock()
		for _, fn := range fns {
			fn(held)
		}
	}
	return ids, err
}

// hold is Hold. Once all processes are stopped, held are these.
func (s *Source) hold(ctx context.Context) (ids []record.ProcessID, held []*Process, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	frozen, forking := s.wasFrozen && s.asked == 1, s.asked > freezeAfter
	if forking {
		if err := s.Freezer.Freeze(ctx); err != nil {
			return nil, nil, err
		}
	}
	if err := s.list(); err != nil {
		if forking { // those that are held have to answer calls
			err = errors.Join(err, s.Freezer.Thaw())
		}
		return nil, nil, err
	}
	if frozen || forking {
		if err := s.attachFrozen(ctx); err != nil {
			return nil, nil, err
		}
	}
	ids = s.alive()
	for _, p := range s.processes {
		if p.gone {
			continue
		}
		if p.Traced == nil {
			return ids, nil, nil
		}
		held = append(held, p)
	}
	return ids, held, s.relateAll(ids)
}

// relateAll does it for the processes with these ids, which are stopped, once.
func (s *Source) relateAll(ids []record.ProcessID) error {
	list := make([]*Process, len(ids))
	known := true
	for i, id := range ids {
		list[i] = s.processes[id-1]
		known = known && list[i].relation.first != nil
	}
	if known {
		return nil
	}
	if err := s.relate(list); err != nil {
		return fmt.Errorf("find out what processes have in common: %w", err)
	}
	return nil
}

// OnHeld has fn called with the processes when all of them are stopped, before the
// first subsystem exports any of them. fn returns soon: what takes long it begins
// in the background, and nobody waits for that but its own subsystem.
func (s *Source) OnHeld(fn func([]*Process)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onHeld = append(s.onHeld, fn)
}

// List names the processes while they run, with the ids that Hold will give
// them. Release is due afterwards.
func (s *Source) List(context.Context) ([]record.ProcessID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.list(); err != nil {
		return nil, err
	}
	return s.alive(), nil
}

// Largest is how much memory without a file the largest process has, in bytes, by
// VmRSS's part RssAnon and VmSwap of proc_pid_status(5). It is 0 where nobody can tell.
func (s *Source) Largest() (most uint64) {
	pids, err := s.Freezer.Pids()
	if err != nil {
		return 0
	}
	for _, pid := range pids {
		if st, err := s.proc.Process(pid).Status(); err == nil {
			most = max(most, st.Vm.RSSAnon+st.Vm.Swap)
		}
	}
	return most
}

// Paused reports whether somebody had frozen the container before the event. It does
// not run until then, and no early round can stop it for a moment.
func (s *Source) Paused() bool { return s.wasFrozen }

// alive are the ids of the processes that have not ended, parents first. Which
// processes are parents is only certain when all are stopped.
func (s *Source) alive() []record.ProcessID {
	var list []*Process
	for _, p := range s.processes {
		if !p.gone {
			list = append(list, p)
		}
	}
	ids := make([]record.ProcessID, 0, len(list))
	for _, p := range parentsFirst(list) {
		ids = append(ids, p.ID)
	}
	return ids
}

// parentsFirst sorts processes into an order in which every one comes behind
// its parent, if that is among them. The init stays the first.
func parentsFirst(list []*Process) []*Process {
	byPid := map[int]*Process{}
	for _, p := range list {
		byPid[p.Group] = p
	}
	out := make([]*Process, 0, len(list))
	done := map[*Process]bool{}
	var add func(*Process)
	add = func(p *Process) {
		if done[p] {
			return
		}
		done[p] = true // before the parent, so that no circle of reused pids can be endless
		if st, err := p.Proc.Status(); err == nil && byPid[st.PPid] != nil {
			add(byPid[st.PPid])
		}
		out = append(out, p)
	}
	for _, p := range list {
		add(p)
	}
	return out
}

// list adds the processes that are not known yet and marks those that have
// exited before they were stopped. The kernel lists no zombies there.
func (s *Source) list() error {
	pids, err := s.Freezer.Pids()
	if err != nil {
		return err
	}
	known, listed := map[int]bool{}, map[int]bool{s.first: true}
	for _, pid := range pids {
		listed[pid] = true
	}
	for _, p := range s.processes {
		p.gone = p.gone || p.Traced == nil && (!listed[p.Group] || p.replaced())
		if !p.gone {
			known[p.Group] = true
		}
	}
	if !known[s.first] {
		pids = append([]int{s.first}, pids...)
	}
	fresh, err := s.meetAll(slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return known[pid] }))
	for _, p := range fresh {
		p.ID = record.ProcessID(len(s.processes) + 1)
		p.Ahead = p.ID == FirstTask // every frame begins with it
		s.processes = append(s.processes, p)
	}
	return err
}

// meetAll takes hold of processes that were not known, and returns them by their age,
// the init first, also with an error.
func (s *Source) meetAll(pids []int) (fresh []*Process, err error) {
	met := map[int]bool{}
	for _, pid := range pids {
		if met[pid] {
			continue
		}
		met[pid] = true
		p, e := s.meet(pid)
		if e != nil {
			err = e
			break
		}
		if p != nil {
			fresh = append(fresh, p)
		}
	}
	slices.SortStableFunc(fresh, func(a, b *Process) int {
		switch s.first {
		case a.Group:
			return -1
		case b.Group:
			return 1
		}
		return a.born().Compare(b.born())
	})
	return fresh, err
}

// meet takes hold of a process that was not known; nil if it has ended meanwhile.
// By an exec of a thread it changes the task by which it is looked at.
func (s *Source) meet(pid int) (*Process, error) {
	const patience = 100 * time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		p, err := newProcess(s, pid)
		if err == nil {
			return p, nil
		}
		if pid != s.first && ending(s.proc.Process(living(s.proc, pid))) {
			return nil, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the container's process %d: %w", pid, err)
		}
	}
}

// attachFrozen seizes every process of a frozen container. Frozen tasks
// report no stop, so all are seized and interrupted first; then the freezer is
// thawed, and each task stops before it runs a single instruction of its own
// (a pending PTRACE_INTERRUPT traps on the way back to user mode). A process
// that is stopped by job control cannot be seized before that: it stays as it
// is when it is thawed.
func (s *Source) attachFrozen(ctx context.Context) error {
	var todo []*Process
	for _, p := range s.processes {
		if p.Traced == nil && !p.gone {
			todo = append(todo, p)
		}
	}
	if len(todo) == 0 {
		return s.Freezer.Thaw()
	}
	gate := newGate(len(todo), s.Freezer.Thaw)
	errs := make([]error, len(todo))
	arrivals := make([]func(), len(todo))
	for i := range todo {
		arrivals[i] = sync.OnceFunc(gate.arrive)
	}
	var wg sync.WaitGroup
	for i, p := range todo {
		arrive := arrivals[i]
		p.thaw = func() error { arrive(); return gate.wait(ctx) }
		wg.Go(func() {
			errs[i] = p.seize(ctx)
			arrive() // seize may have failed before it came to the gate
		})
	}
	passStopped(ctx, todo, arrivals, gate)
	wg.Wait()
	for i, p := range todo {
		p.thaw = nil
		if errors.Is(errs[i], tracer.ErrExited) || procfs.IsGone(errs[i]) {
			p.gone, errs[i] = p.Group != s.first, nil
		}
	}
	return errors.Join(errs...)
}

// passStopped lets those through the gate that are stopped by job control: their
// tracers wait in the kernel until they are thawed. One that is seen to wait for
// the same thread a few times in a row does so.
func passStopped(ctx context.Context, list []*Process, arrivals []func(), g *gate) {
	const look, often = 2 * time.Millisecond, 5
	type sight struct{ tid, times int }
	seen := make([]sight, len(list))
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-g.open:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, p := range list {
			tid := p.seizing()
			if tid == 0 || tid != seen[i].tid {
				seen[i] = sight{tid: tid}
				continue
			}
			if seen[i].times++; seen[i].times == often {
				arrivals[i]()
			}
		}
	}
}

// Pids lists the container's processes while they run, the init first, each by
// the task by which it is looked at (Living). Any of them may be gone by then.
func (s *Source) Pids() ([]int, error) {
	pids, err := s.Freezer.Pids()
	if err != nil {
		return nil, err
	}
	out := []int{s.Init}
	for _, pid := range pids {
		if pid != s.first {
			out = append(out, living(s.proc, pid))
		}
	}
	return out, nil
}

// Process is the constructor set of one process; nil if there is none.
func (s *Source) Process(id record.ProcessID) *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == 0 || int(id) > len(s.processes) {
		return nil
	}
	return s.processes[id-1]
}

// Stopped is a process that was set up; ErrNotStopped with its id for any other.
func (s *Source) Stopped(id record.ProcessID) (*Process, error) {
	p := s.Process(id)
	if p == nil || p.Traced == nil {
		return nil, fmt.Errorf("process %d: %w", id, ErrNotStopped)
	}
	return p, nil
}

// Processes are all processes that Hold named and that have not ended, in the
// order of their ids.
func (s *Source) Processes() []*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.processes), func(p *Process) bool { return p.gone })
}

// Seal freezes the stopped container: from now on it stays still even if the
// engine dies. No remote call works until it is thawed.
func (s *Source) Seal(ctx context.Context) error {
	if err := s.Freezer.Freeze(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.sealed = true
	s.mu.Unlock()
	return nil
}

// WhileFrozen calls fn while the stopped container is frozen besides: what fn
// does to it in passing its tasks cannot run into, even if the engine dies. No
// remote call works in fn.
func (s *Source) WhileFrozen(ctx context.Context, fn func() error) error {
	s.mu.Lock()
	sealed := s.sealed
	s.mu.Unlock()
	if sealed {
		return fn()
	}
	if err := s.Freezer.Freeze(ctx); err != nil {
		return err
	}
	err := fn()
	return errors.Join(err, s.Freezer.Thaw())
}

// BeforeRun has fn called before the first process runs on, if they do: whether
// the event failed or leaves the container running. It undoes what was done to
// the container beside its processes.
func (s *Source) BeforeRun(fn func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beforeRun = append(s.beforeRun, fn)
}

// BeforeKill has fn called when the container is to be ended, before the first
// process is killed, if it ever is. The container is frozen then and runs no
// instruction of its own any more.
func (s *Source) BeforeKill(fn func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beforeKill = append(s.beforeKill, fn)
}

// AfterKill has fn called when the container was ended and no process of it is
// left.
func (s *Source) AfterKill(fn func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.afterKill = append(s.afterKill, fn)
}

// callOnce calls the functions of a list and empties it. Others who call it wait
// for the end.
func (s *Source) callOnce(list *[]func() error) error {
	s.calling.Lock()
	defer s.calling.Unlock()
	s.mu.Lock()
	fns := *list
	*list = nil
	s.mu.Unlock()
	var errs []error
	for _, fn := range fns {
		errs = append(errs, fn())
	}
	return errors.Join(errs...)
}

// beforeRemote thaws a sealed container: its tasks stay stopped by ptrace.
func (s *Source) beforeRemote() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sealed {
		return nil
	}
	s.sealed = false
	return s.Freezer.Thaw()
}

// Release ends the hold: a container that was paused is paused again, any
// other runs; what was killed is reaped.
func (s *Source) Release(ctx context.Context) error {
	s.mu.Lock()
	killed, all := s.killed, s.processes
	s.killed = nil
	s.mu.Unlock()
	var err error
	if len(killed) > 0 || !s.wasFrozen {
		err = s.Freezer.Thaw()
	} else {
		err = errors.Join(withdraw(all), s.Freezer.Freeze(ctx))
	}
	// Side by side: an init is not reported dead before all others are.
	errs := make([]error, len(killed))
	var wg sync.WaitGroup
	for i, p := range killed {
		wg.Go(func() { errs[i] = p.reap() })
	}
	wg.Wait()
	err = errors.Join(err, errors.Join(errs...))
	if len(killed) > 0 {
		err = errors.Join(err, s.callOnce(&s.afterKill))
	} else {
		err = errors.Join(err, s.callOnce(&s.beforeRun))
	}
	for _, p := range all {
		if p.Traced != nil && !slices.Contains(killed, p) {
			err = errors.Join(err, p.letGo())
		}
		p.close()
	}
	s.mu.Lock()
	s.sealed, s.asked, s.processes, s.beforeRun, s.beforeKill, s.afterKill = false, 0, nil, nil, nil, nil
	s.mu.Unlock()
	return err
}

// withdraw puts back, in those that Restart was not called for, all that remote
// calls have changed. It comes before the freezer: what is frozen answers no call.
// Where one may still be under way that control has given up, it is left alone.
func withdraw(processes []*Process) error {
	var errs []error
	for _, p := range processes {
		if p.leftToRelease() {
			errs = append(errs, p.withdraw())
		}
	}
	return errors.Join(errs...)
}

// gate opens when n have arrived; the last to arrive runs fn first.
type gate struct {
	mu   sync.Mutex
	left int
	open chan struct{}
	fn   func() error
	err  error // of fn, valid once open
}

func newGate(n int, fn func() error) *gate {
	return &gate{left: n, open: make(chan struct{}), fn: fn}
}

func (g *gate) arrive() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left--
	if g.left == 0 {
		g.err = g.fn()
		close(g.open)
	}
}

// wait returns fn's error once the gate is open.
func (g *gate) wait(ctx context.Context) error {
	select {
	case <-g.open:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
