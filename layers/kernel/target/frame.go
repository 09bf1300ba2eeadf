// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
)

// Descriptors that a frame is created with, behind its standard streams.
const (
	frameProgram = 3 // the frame's ELF, a sealed memfd
	frameSocket  = 4 // a datagram socket, by which the engine sends descriptors
)

// Frame is the container on the importing side: made by libcontainer from the
// live request's spec, with a tiny program in place of the user's, which turns
// into the image's processes.
type Frame struct {
	// Init is the container's first process, in the engine's pid namespace.
	Init int
	// Socket is the engine's end of the pair whose other end the frame has.
	Socket int
	// Started is called when the frame has been seized: whoever created the
	// container lets it exec the frame program now.
	Started func(context.Context) error
	// Releasing is called immediately before the first task is let go, when nothing
	// else can fail: until it returns, every task dies with the engine. May be nil.
	Releasing func() error
	// Limits is what the live request allows: see Allowed.
	Allowed Allowed
	// Files are its file systems on this host, Cgroups its own cgroups by
	// controller, as a Source's.
	Files   Files
	Cgroups map[string]string
	// OwnIPC, OwnUTS, OwnNet: the container has such a namespace of its own.
	OwnIPC, OwnUTS, OwnNet bool
	// SharesTime: the live spec joins a time namespace that others have, too.
	SharesTime bool

	mu    sync.Mutex
	tasks map[record.ProcessID]*Task
	order []record.ProcessID // parents first
	// made are all processes that exist, also those that have no id.
	made []*Task
	// tracer serves all of them.
	tracer *tracer.Tracer
	// later makes processes that do not exist yet: see GrowLater.
	growing sync.Mutex
	later   func(id record.ProcessID) error
	forked  func(parent, child *Task)
	transit map[uint64]bool // see Transit
	shared  bool            // see Share
	freePid int             // the last one that ForkFree found
	// objects are the files whose content travels, by their ids.
	objects map[uint64]*Object
	// segments are the System V shared memory that was made.
	segments map[int32]Segment
	commit   func() error // runs once
	armed    func() error // likewise, see Arm
	// atCommit is what AtCommit was given, atRelease what AtRelease was.
	atCommit  []commitment
	atRelease []func() error
	// atLetGo is what AtLetGo was given; letGo: what it announces has happened.
	atLetGo []func() error
	letGo   atomic.Bool
	// terminals are those that exist, by their numbers in the image.
	terminals map[int]*MadeTerminal
	// atFailure are those of AtFailure, nil once there is a copy.
	atFailure []func() error

	// sending is held while descriptors are on their way to a process: all of
	// them read from one socket.
	sending sync.Mutex
}

// Allowed bounds what an image may ask for. It comes from the live request's
// OCI spec; an image can only narrow it.
type Allowed struct {
	// UID, GID and Groups the spec starts its process with, and whether a
	// process started afresh could become any other (CAP_SETUID, CAP_SETGID).
	UID, GID uint32
	Groups   []uint32
	// Capabilities of the spec's process as bit masks.
	Bounding, Permitted, Effective, Inheritable, Ambient uint64
	NoNewPrivileges                                      bool
	// Limits are the spec's resource limits by RLIMIT_* number.
	Limits map[int]unix.Rlimit
}

// Task is one process under construction. It is control's constructor set for
// it.
type Task struct {
	ID record.ProcessID
	// Pid in the engine's pid namespace.
	Pid int
	// Proc reads its files in /proc.
	Proc procfs.Task
	// Traced gives remote calls, registers and memory. nil unless taken over.
	Traced *tracer.Process
	// Table is its descriptor table.
	Table *Table
	// Stdio holds, after MoveStdio, where the container's own standard streams
	// are; -1 for one that is closed.
	Stdio [3]int
	// Threads are the image's threads by their ids in the pid namespace.
	Threads map[int]*tracer.Thread

	// SharesDirectories: see Birth.Directories.
	SharesDirectories bool
	// SharesTable: see Birth.Table. Its Table is its maker's, by which everything is
	// done.
	SharesTable bool
	// space is the task whose memory it has, nil for its own.
	space *Task

	// ending is the leader's exit code if it is to end before the other threads.
	ending *int

	// Apart are the threads that have not all in common with the process, by their ids
	// in the image.
	Apart []Apart
	// own are the tables of threads that have their own, by the first of them.
	own map[int]*Table
	// thread makes the calls that are planned for a view of the task; nil: the leader.
	thread *tracer.Thread

	frame  *Frame
	socket int // its end of the pair, as a descriptor of the task
	// caps are the frame's own capabilities, until the image's are set. nil: not
	// read yet.
	caps  *procfs.CapSets
	later later
	// files is the limit of open files to go back to, nil if it was not lifted.
	files *unix.Rlimit
	stop  *Stop // nil: it runs
}

// Space is the task to which the memory belongs that this one has in common with it:
// see Birth.Memory. Of most it is their own.
func (t *Task) Space() *Task {
	if t.space == nil {
		return t
	}
	return t.space
}

// Task returns a process under construction, nil if there is none.
func (f *Frame) Task(id record.ProcessID) *Task {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tasks[id]
}

// Stopped is a process under construction that was set up; ErrNotStopped with its id
// for any other.
func (f *Frame) Stopped(id record.ProcessID) (*Task, error) {
	t := f.Task(id)
	if t == nil || t.Traced == nil {
		return nil, fmt.Errorf("process %d: %w", id, ErrNotStopped)
	}
	return t, nil
}

// Tasks are all processes under construction, parents first.
func (f *Frame) Tasks() []*Task {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*Task, len(f.order))
	for i, id := range f.order {
		out[i] = f.tasks[id]
	}
	return out
}

// Hold names the frame's processes: its first one, and those that were made in
// it since (Add).
func (f *Frame) Hold(context.Context) ([]record.ProcessID, error) {
	if err := f.grow(allProcesses); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.order) == 0 {
		t := &Task{ID: FirstTask, Pid: f.Init, Proc: procfs.Host().Process(f.Init), frame: f}
		f.tasks = map[record.ProcessID]*Task{FirstTask: t}
		f.order, f.made = []record.ProcessID{FirstTask}, []*Task{t}
		f.commit, f.armed = sync.OnceValue(f.commitOnTracer), sync.OnceValue(f.arm)
	}
	return slices.Clone(f.order), nil
}

// FirstTask is the id of a container's first process, on either side.
const FirstTask record.ProcessID = 1

// Seal and Release have nothing to do: a frame is held by its tracer alone.
func (f *Frame) Seal(context.Context) error { return nil }

// Release ends the handle of a frame whose import has failed.
func (f *Frame) Release(context.Context) error {
	f.mu.Lock()
	list := f.atFailure
	f.atFailure = nil
	f.mu.Unlock()
	var errs []error
	for _, fn := range list {
		errs = append(errs, fn())
	}
	return errors.Join(errs...)
}

// AtFailure has fn called if the import fails, when the frame's processes are
// gone: it undoes what was done beside them.
func (f *Frame) AtFailure(fn func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.atFailure = append(f.atFailure, fn)
}

// Setup takes over the frame: seizes it, lets it exec the frame program and
// looks at its descriptors.
func (t *Task) Setup(ctx context.Context) error {
	if t.Traced != nil {
		return nil
	}
	tr := tracer.New()
	p, err := tr.AttachFrame(ctx, tracer.Options{Pid: t.Pid})
	if err != nil {
		return errors.Join(fmt.Errorf("take over the frame, pid %d: %w", t.Pid, err), tr.Close())
	}
	t.frame.tracer, t.Traced = tr, p
	if err := t.start(ctx); err != nil {
		return errors.Join(err, t.Cleanup(ctx))
	}
	t.Threads = map[int]*tracer.Thread{p.Leader().NSTid: p.Leader()}
	return nil
}

func (t *Task) start(ctx context.Context) error {
	if t.frame.Started != nil {
		if err := t.frame.Started(ctx); err != nil {
			return fmt.Errorf("start the frame program: %w", err)
		}
	}
	if err := t.Traced.WaitExec(ctx); err != nil {
		return fmt.Errorf("wait for the frame program: %w", err)
	}
	fds, err := t.Proc.FDs()
	if err != nil {
		return fmt.Errorf("list the frame's descriptors: %w", err)
	}
	t.Table = newTable(fds)
	t.socket = frameSocket
	return nil
}

// Prepare is called when the image's mappings are known, before anything else
// is done to the task: no scratch memory may lie in avoid, and no soft limit
// may get into the way of building.
func (t *Task) Prepare(avoid []tracer.Range) error {
	if err := t.Traced.Avoid(avoid...); err != nil {
		return err
	}
	return t.raiseLimits()
}

// raiseLimits lifts the soft limits that would get into the way of building,
// to the hard ones. The subsystem of limits lowers them last.
func (t *Task) raiseLimits() error {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	limits, err := t.Proc.Limits()
	if err != nil {
		return fmt.Errorf("read the frame's limits: %w", err)
	}
	var calls []tracer.Call
	for _, r := range []int{unix.RLIMIT_NOFILE, unix.RLIMIT_AS, unix.RLIMIT_DATA, unix.RLIMIT_STACK, unix.RLIMIT_MEMLOCK} {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], limits[r].Hard)
		binary.LittleEndian.PutUint64(b[8:], limits[r].Hard)
		addr, err := sc.Put(b[:])
		if err != nil {
			return err
		}
		calls = append(calls, tracer.Syscall(unix.SYS_PRLIMIT64, 0, uint64(r), addr, 0))
	}
	return t.Run(calls)
}

// Restart lets the task run as what the image says. The first call takes the
// engine out of all tasks, so that nothing can fail in any of them when the
// first one runs: registers are the last thing that is set.
func (t *Task) Restart(context.Context) error {
	if t.Traced == nil {
		return ErrNotStopped
	}
	// Not on the tracer's thread, which does what others ask of it while it waits
	// in a commit (tracer.WaitFor): another task's Restart among that would come
	// back to the commit that it is in the middle of.
	if err := t.frame.commit(); err != nil {
		return err
	}
	return t.Traced.Do(func() error {
		if err := t.Traced.Detach(); err != nil {
			return fmt.Errorf("process %d: let it run: %w", t.ID, err)
		}
		return t.forget()
	})
}

// commitment is a part of a commit and what takes it back.
type commitment struct{ do, undo func() error }

// AtCommit has do called when every task is complete and none of them runs, and the
// source waits for the outcome. It is for what others outside of the container see, as
// far as it can be taken back: an error ends the copy, and the source goes on. Then
// undo is called, of the last one first, also of the one that has failed, before the
// source is told: from then on nobody may hear of the copy any more.
func (f *Frame) AtCommit(do, undo func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.atCommit = append(f.atCommit, commitment{do, undo})
}

// AtRelease has fn called behind all that, when it is certain that the copy is the
// container, before the first of its tasks runs: for what cannot be taken back. In a
// move its error ends nothing any more, and is logged.
func (f *Frame) AtRelease(fn func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.atRelease = append(f.atRelease, fn)
}

// AtLetGo has fn called when nothing can fail any more that could be taken back: for what
// the engine keeps for that. Its error is logged.
func (f *Frame) AtLetGo(fn func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.atLetGo = append(f.atLetGo, fn)
}

// Arm takes the engine's memory out of every task and gives each its registers, of
// which Restart would take care otherwise: whoever has to wait for the permission
// to let them run does it meanwhile. No stage may follow. The tasks still die
// with the engine, and Cleanup still ends them.
func (f *Frame) Arm() error {
	tasks := f.Tasks()
	if len(tasks) == 0 || tasks[0].Traced == nil {
		return ErrNotStopped
	}
	return tasks[0].Traced.Do(f.armed)
}

func (f *Frame) arm() error {
	tasks := f.Tasks()
	for _, t := range tasks {
		if t.Traced == nil {
			return fmt.Errorf("process %d: %w", t.ID, ErrNotStopped)
		}
		if len(t.later.batches) > 0 {
			return fmt.Errorf("process %d: %w", t.ID, errLater)
		}
		if err := t.halt(); err != nil {
			return fmt.Errorf("process %d: stop it: %w", t.ID, err)
		}
	}
	for _, t := range tasks {
		if err := t.Traced.Release(); err != nil {
			return fmt.Errorf("process %d: set the registers: %w", t.ID, err)
		}
	}
	return nil
}

// commitOnTracer does all of the commit on the thread that makes its requests: a
// switch to it for each of them would be a part of the silence.
func (f *Frame) commitOnTracer() error {
	for _, t := range f.Tasks() {
		if t.Traced != nil {
			return t.Traced.Do(f.commitAll)
		}
	}
	return ErrNotStopped
}

// commitAll does what was kept for the commit, and then takes away the threat that
// the tasks die with the engine.
func (f *Frame) commitAll() error {
	if err := f.armed(); err != nil {
		return err
	}
	if err := f.promise(); err != nil {
		return err
	}
	for _, fn := range f.atLetGo {
		if err := fn(); err != nil {
			slog.Error("what the copy does not need any more", "error", err)
		}
	}
	f.mu.Lock()
	f.atFailure = nil
	f.mu.Unlock()
	f.letGo.Store(true)
	return nil
}

// promise does what AtCommit was given, has written down that the copy is the container,
// and does what follows from that; or takes all of it back. It is written down late,
// since what comes before takes milliseconds where there are connections: a death behind
// it leaves nobody who knows whether a task ran.
func (f *Frame) promise() (err error) {
	done := 0
	for _, c := range f.atCommit {
		done++
		if err = c.do(); err != nil {
			break
		}
	}
	if err == nil && f.Releasing != nil {
		err = f.Releasing()
	}
	if err == nil {
		if err = f.released(); err == nil {
			return nil
		}
		defer f.doom()
	}
	for _, c := range slices.Backward(f.atCommit[:done]) {
		if e := c.undo(); e != nil {
			slog.Error("what others see of a copy that is given up", "error", e)
		}
	}
	return err
}

// released does what AtRelease was given, and takes away the threat that the tasks die
// with the engine.
func (f *Frame) released() error {
	for _, fn := range f.atRelease {
		switch err := fn(); {
		case err == nil:
		case f.Releasing == nil:
			return err
		default:
			slog.Error("the copy is the container now, but not whole", "error", err)
		}
	}
	for _, t := range f.Tasks() {
		if err := t.Traced.Commit(); err != nil {
			return fmt.Errorf("process %d: commit: %w", t.ID, err)
		}
	}
	return nil
}

// doom makes sure that no task runs any more, even if the engine dies now: some may
// not die with it.
func (f *Frame) doom() {
	for _, t := range f.Tasks() {
		if err := t.Traced.Doom(); err != nil {
			slog.Error("a task of a copy that is given up may run", "process", t.ID, "error", err)
			f.letGo.Store(true)
		}
	}
}

// LetGo reports whether a task may have run already. As long as the engine lives it is
// certain that none has before.
func (f *Frame) LetGo() bool { return f.letGo.Load() }

// Cleanup kills the task; the first one with all others, which it would
// otherwise wait for in vain: it is not reported dead before they are.
func (t *Task) Cleanup(context.Context) error {
	doomed := []*Task{t}
	if t.ID == FirstTask {
		t.frame.mu.Lock()
		doomed = slices.Clone(t.frame.made)
		t.frame.mu.Unlock()
		slices.Reverse(doomed)
	}
	var errs []error
	for _, d := range doomed {
		errs = append(errs, d.kill())
	}
	return errors.Join(errs...)
}

func (t *Task) kill() error {
	if t.Traced == nil {
		return nil
	}
	err := t.Traced.Kill()
	if errors.Is(err, tracer.ErrExited) {
		err = nil
	}
	return errors.Join(err, t.forget())
}

// forget drops a task that is not traced any more; with the last one the
// tracer ends.
func (t *Task) forget() error {
	f := t.frame
	f.mu.Lock()
	t.Traced = nil
	f.made = slices.DeleteFunc(f.made, func(o *Task) bool { return o == t })
	var tr *tracer.Tracer
	if len(f.made) == 0 {
		tr, f.tracer = f.tracer, nil
	}
	f.mu.Unlock()
	if tr == nil {
		return nil
	}
	return tr.Close()
}

// Run makes calls in the task's leader and fails if one of them does.
func (t *Task) Run(calls []tracer.Call) error {
	if err := t.Traced.Run(t.Traced.Leader(), calls); err != nil {
		return err
	}
	return tracer.Check(calls)
}

// PutString writes a NUL-terminated string into the task's scratch memory.
func (t *Task) PutString(s string) (uint64, error) {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return 0, err
	}
	return sc.Put(append([]byte(s), 0))
}

// MoveStdio takes the container's standard streams and the engine's socket out
// of the way of the image's descriptors, to numbers above all of them, and
// closes everything else that the frame had. It is called once, when the whole
// table is known (Table.Want) and before the first descriptor is placed.
func (t *Task) MoveStdio() error {
	t.placeTransit()
	if err := t.LiftLimit(); err != nil {
		return err
	}
	p := t.Plan()
	open := t.Table.used
	for i := range t.Stdio {
		t.Stdio[i] = -1
		if open[i] {
			t.Stdio[i] = p.DupAbove(i, t.Table.Aside())
		}
	}
	socket := p.DupAbove(t.socket, t.Table.Aside())
	t.socket = socket
	t.moveObjects(p)
	keep := map[int]bool{socket: true, t.Stdio[0]: true, t.Stdio[1]: true, t.Stdio[2]: true}
	for _, fd := range t.Table.carried {
		*fd = p.DupAbove(*fd, t.Table.Aside())
		keep[*fd] = true
	}
	for _, fd := range sortedKeys(open) {
		if !keep[fd] && !t.Table.kept[fd] {
			p.Close(fd)
		}
	}
	if err := p.Run(); err != nil {
		return fmt.Errorf("move the frame's descriptors out of the way (is the hard limit of open files large enough?): %w", err)
	}
	for _, o := range t.frame.Tasks() {
		if o.Table == t.Table {
			o.socket, o.Stdio = t.socket, t.Stdio
		}
	}
	return nil
}

// CloseOwn closes what MoveStdio kept. It is called once, when every
// descriptor of the image is in its place.
func (t *Task) CloseOwn() error {
	p := t.Plan()
	if err := t.closeTransit(p); err != nil {
		return err
	}
	own := append(sortedKeys(t.Table.parked), t.Stdio[0], t.Stdio[1], t.Stdio[2], t.socket)
	for _, fd := range own {
		if fd >= 0 && t.Table.used[fd] {
			p.Close(fd)
		}
	}
	for desc, fd := range t.Table.made {
		if t.Table.parked[fd] {
			delete(t.Table.made, desc)
		}
	}
	clear(t.Table.parked)
	if err := p.Run(); err != nil {
		return err
	}
	return t.LowerLimit()
}

// LowerLimit puts the limit of open files back that LiftLimit has lifted.
func (t *Task) LowerLimit() error {
	if t.files == nil {
		return nil
	}
	if err := unix.Prlimit(t.Pid, unix.RLIMIT_NOFILE, t.files, nil); err != nil {
		return fmt.Errorf("lower the limit of open files again: %w", err)
	}
	t.files = nil
	return nil
}

// tableMargin is how many descriptors are needed beside those of the image
// while its table is built: the frame's own and those that are on their way.
const tableMargin = 16

// LiftLimit lifts the limit of open files, from outside, where the image has
// nearly all numbers below it. LowerLimit puts it back. MoveStdio and CloseOwn do
// both; a task that shares its table needs them for those that threads have of their own.
func (t *Task) LiftLimit() error {
	if t.SharesTable && len(t.own) == 0 {
		return nil // nothing is opened by it
	}
	var was unix.Rlimit
	if err := unix.Prlimit(t.Pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	need := len(t.Table.wanted) + len(t.Table.kept) + 2*len(t.Table.carried) + frameSocket + 1 + tableMargin + t.frame.parkable(t)
	for _, own := range t.own {
		need += len(own.wanted)
	}
	for _, table := range append(slices.Collect(maps.Values(t.own)), t.Table) {
		for fd := range table.wanted {
			need = max(need, fd+1)
		}
	}
	if was.Cur >= uint64(need) {
		return nil
	}
	wide := unix.Rlimit{Cur: uint64(need), Max: max(was.Max, uint64(need))}
	if err := unix.Prlimit(t.Pid, unix.RLIMIT_NOFILE, &wide, nil); err != nil {
		return fmt.Errorf("lift the limit of open files to %d for the moment: %w", need, err)
	}
	t.files = &was
	return nil
}

// Allowed bounds what the image may ask for.
func (t *Task) Allowed() Allowed { return t.frame.Allowed }
