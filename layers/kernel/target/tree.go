// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
)

// Birth says how a task makes another process.
type Birth struct {
	// Pid in the container's pid namespace.
	Pid int
	// ExitSignal is what the parent is sent when it ends; 0 is nothing. A
	// sibling's is that of the process that makes it.
	ExitSignal int
	// Sibling: its parent is that of the process that makes it (CLONE_PARENT).
	Sibling bool
	// Common is what it has in common with the process that makes it.
	Common
}

// cloneArgsSize is the size of struct clone_args with set_tid
// (CLONE_ARGS_SIZE_VER1); set_tid's one element is put behind it.
const cloneArgsSize = 80

// Fork makes a process that is a copy of this task as it is now, but for what they
// have in common. It stays stopped, dies with the engine like its maker, and has no id until Add.
func (t *Task) Fork(b Birth) (*Task, error) {
	flags := uint64(unix.CLONE_PTRACE)
	if b.Sibling {
		flags |= unix.CLONE_PARENT
		b.ExitSignal = 0 // the kernel takes the maker's
	}
	for i, flag := range [...]uint64{unix.CLONE_VM, unix.CLONE_SIGHAND, unix.CLONE_FS, unix.CLONE_FILES} {
		if b.list()[i] {
			flags |= flag
		}
	}
	p, le := t.Plan(), binary.LittleEndian
	addr, args := p.room(cloneArgsSize + 8)
	le.PutUint64(args, flags)
	le.PutUint64(args[32:], uint64(b.ExitSignal))
	le.PutUint64(args[64:], addr+cloneArgsSize) // set_tid
	le.PutUint64(args[72:], 1)                  // set_tid_size
	le.PutUint32(args[cloneArgsSize:], uint32(b.Pid))
	p.Expect(tracer.Syscall(unix.SYS_CLONE3, addr, cloneArgsSize), int64(b.Pid))
	if err := p.Run(); err != nil {
		return nil, fmt.Errorf("make process %d: %w", b.Pid, err)
	}
	adopt := t.Traced.AdoptChild
	if b.Memory {
		adopt = t.Traced.AdoptSharer
	}
	traced, err := adopt(b.Pid)
	if err != nil {
		return nil, fmt.Errorf("take in process %d: %w", b.Pid, err)
	}
	child := &Task{
		Pid: traced.Pid, Proc: procfs.Host().Process(traced.Pid), Traced: traced,
		Table: t.Table, frame: t.frame, socket: t.socket, Stdio: t.Stdio,
		Threads: map[int]*tracer.Thread{b.Pid: traced.Leader()}, SharesDirectories: b.Directories, SharesTable: b.Table,
	}
	if b.Memory {
		child.space = t.Space()
	}
	if b.Table {
		t.Table.common = true
	} else {
		child.Table = newTable(sortedKeys(t.Table.used))
	}
	t.frame.mu.Lock()
	t.frame.made = append(t.frame.made, child)
	forked := t.frame.forked
	t.frame.mu.Unlock()
	if forked != nil {
		forked(t, child)
	}
	if b.Table {
		return child, nil
	}
	return child, child.closeKept(t.Table)
}

// Part gives the task directories and a descriptor table of its own, which it has in
// common with others: copies of those as they are now.
func (t *Task) Part(c Common) error {
	var flags uint64
	if c.Directories {
		flags |= unix.CLONE_FS
	}
	if c.Table {
		flags |= unix.CLONE_FILES
	}
	if err := t.Run([]tracer.Call{tracer.Syscall(unix.SYS_UNSHARE, flags)}); err != nil {
		return fmt.Errorf("give process %d its own %s: %w", t.Traced.NSPid, c, err)
	}
	t.SharesDirectories = t.SharesDirectories && !c.Directories
	if !c.Table {
		return nil
	}
	was := t.Table
	t.Table, t.SharesTable = newTable(sortedKeys(was.used)), false
	return t.closeKept(was)
}

// freeTries bounds how many numbers ForkFree tries.
const freeTries = 4096

// ForkFree is Fork for a process that is not one of the image's and is ended
// before its threads are made: it gets a number that is free now, and its end
// is told nobody.
func (t *Task) ForkFree() (*Task, error) {
	t.frame.mu.Lock()
	pid := t.frame.freePid
	t.frame.mu.Unlock()
	for range freeTries {
		if pid++; pid < firstFree {
			pid = firstFree
		}
		child, err := t.Fork(Birth{Pid: pid})
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		t.frame.mu.Lock()
		t.frame.freePid = pid
		t.frame.mu.Unlock()
		return child, err
	}
	return nil, fmt.Errorf("no process id from %d on is free", pid-freeTries)
}

// HostPid finds a process or thread of the frame by its number in the container,
// also one that has ended and was not waited for; 0: there is none.
func (f *Frame) HostPid(pid int) (int, error) {
	for _, t := range f.Tasks() {
		if t.Traced != nil && t.Traced.NSPid == pid {
			return t.Pid, nil
		}
		if th := t.Threads[pid]; th != nil {
			return th.Tid, nil
		}
		children, err := t.Proc.Thread(t.Pid).Children()
		if err != nil {
			return 0, err
		}
		for _, child := range children {
			st, err := procfs.Host().Process(child).Status()
			if err == nil && len(st.NSpid) > 1 && st.NSpid[len(st.NSpid)-1] == pid {
				return child, nil
			}
		}
	}
	return 0, nil
}

// firstFree is behind the ids that nearly every container has.
const firstFree = 300

// closeKept closes what the engine keeps open for a while in the table of which this
// one is a copy: nobody would in the copy.
func (t *Task) closeKept(original *Table) error {
	p := t.Plan()
	for _, fd := range sortedKeys(original.kept) {
		p.Close(fd)
	}
	return p.Run()
}

// allProcesses is what GrowLater's function is asked for in the end.
const allProcesses = record.Shared

// GrowLater says how to make the image's processes: fn makes what it has to until
// the one with the id exists, and with record.Shared all that are left. So a
// process is made when its own state arrives, as a copy of what its maker has
// become by then.
func (f *Frame) GrowLater(fn func(id record.ProcessID) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.later = fn
}

// OnFork has fn called with every process that is made and its maker.
func (f *Frame) OnFork(fn func(maker, made *Task)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forked = fn
}

// Need returns a process under construction, which is made if it does not exist
// yet; nil if the image has none with this id.
func (f *Frame) Need(id record.ProcessID) (*Task, error) {
	if t := f.Task(id); t != nil || id == allProcesses {
		return t, nil
	}
	if err := f.grow(id); err != nil {
		return nil, err
	}
	return f.Task(id), nil
}

// NeedAll has all processes made that do not exist yet.
func (f *Frame) NeedAll() error { return f.grow(allProcesses) }

// grow makes processes, one after another.
func (f *Frame) grow(id record.ProcessID) error {
	f.growing.Lock()
	defer f.growing.Unlock()
	f.mu.Lock()
	fn := f.later
	if id == allProcesses {
		f.later = nil
	}
	f.mu.Unlock()
	if fn == nil {
		return nil
	}
	return fn(id)
}

// ErrTaken means that an id is in use already.
var ErrTaken = errors.New("a process has that id already")

// Add gives a forked task its id: from now on it is one of the image's.
func (f *Frame) Add(id record.ProcessID, t *Task) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id == record.Shared || f.tasks[id] != nil {
		return fmt.Errorf("process %d: %w", id, ErrTaken)
	}
	t.ID = id
	f.tasks[id] = t
	f.order = append(f.order, id)
	return nil
}

// Remove takes a task's id back: it is none of the image's any more.
func (f *Frame) Remove(t *Task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.tasks, t.ID)
	f.order = slices.DeleteFunc(f.order, func(id record.ProcessID) bool { return id == t.ID })
}

// End makes a forked task end with a status as wait(2) reports it. Its parent
// has a zombie then, until it calls Bury.
func (t *Task) End(status int) error {
	if err := t.Traced.End(status); err != nil {
		return err
	}
	return t.forget()
}

// Bury waits for a child of the task that has ended.
func (t *Task) Bury(pid int) error {
	p := t.Plan()
	p.Expect(tracer.Syscall(unix.SYS_WAIT4, uint64(pid), 0, unix.WNOHANG|unix.WALL, 0), int64(pid))
	if err := p.Run(); err != nil {
		return fmt.Errorf("wait for process %d: %w", pid, err)
	}
	return nil
}

// Disregard takes a signal from the task's queue, if it is there.
func (t *Task) Disregard(sig unix.Signal) error {
	p := t.Plan()
	set := p.Put(binary.LittleEndian.AppendUint64(nil, 1<<(sig-1)))
	zero := p.Put(make([]byte, 16))
	const setSize = 8
	i := p.Quiet(tracer.Syscall(unix.SYS_RT_SIGTIMEDWAIT, set, 0, zero, setSize))
	if err := p.Run(); err != nil {
		return err
	}
	if _, err := p.Result(i); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("take signal %d from the queue: %w", sig, err)
	}
	return nil
}
