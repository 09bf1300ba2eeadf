// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// A descriptor table that some threads have, and their process has not, is made with
// the first of these threads, as a copy of the process's (clone(2) without
// CLONE_FILES), when every description is made and shared out. So whatever such a
// table wants is in the process's until then: what that does not want itself is lent
// to it, like a description that is in transit.

// OwnTable plans the table that a thread has of its own, by its id in the image, with
// those that share it.
func (t *Task) OwnTable(tid int) *Table {
	if t.own == nil {
		t.own = map[int]*Table{}
	}
	if t.own[tid] == nil {
		t.own[tid] = newTable(nil)
	}
	return t.own[tid]
}

// lacking are the descriptions, in order, that own tables want of tasks that have
// this task's table, and that this table does not want.
func (t *Task) lacking() []uint64 {
	found := map[uint64]bool{}
	for _, o := range t.frame.Tasks() {
		if o.Table != t.Table {
			continue
		}
		for _, own := range o.own {
			for desc := range own.slots {
				if len(t.Table.slots[desc]) == 0 {
					found[desc] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// SeparateTables makes what the image wants of the tables that threads have of their
// own. Each such thread exists by now, and has a copy of the process's table as it is
// now, in which every description is (Frame.Share).
func (t *Task) SeparateTables() error {
	for _, a := range t.Apart {
		if a.Table == a.Tid && t.own[a.Tid] == nil {
			return fmt.Errorf("the image has no descriptor table for thread %d, which has its own", a.Tid)
		}
	}
	for _, tid := range slices.Sorted(maps.Keys(t.own)) {
		if !slices.ContainsFunc(t.Apart, func(a Apart) bool { return a.Tid == tid && a.Table == tid }) {
			return fmt.Errorf("the image has a descriptor table for thread %d, which has none of its own", tid)
		}
		if err := t.separate(tid); err != nil {
			return fmt.Errorf("descriptor table of thread %d: %w", tid, err)
		}
	}
	return nil
}

// separate does it for one.
func (t *Task) separate(tid int) error {
	own := t.own[tid]
	v := t.view(tid)
	for fd := range t.Table.used {
		own.used[fd] = true
	}
	p := v.Plan()
	descs := slices.Sorted(maps.Keys(own.slots))
	at := make([]int, len(descs))
	for i, desc := range descs {
		fd, ok := t.Table.Made(desc)
		if !ok || !own.used[fd] {
			return fmt.Errorf("nobody carries the description of descriptor %d: the image is incomplete", own.slots[desc][0].FD)
		}
		if at[i] = fd; own.wanted[fd] && !own.leads(desc, fd) {
			at[i] = p.DupAbove(fd, own.Aside()) // another one is to be there
		}
	}
	for i, desc := range descs {
		p.replace(desc, at[i])
	}
	p.closeOthers()
	if err := p.Run(); err != nil {
		return fmt.Errorf("put the descriptors in their places (is the hard limit of open files large enough?): %w", err)
	}
	return nil
}

// closeOthers closes what the table does not want: by close_range(2), since every table
// is a copy of one that may be large, and there may be many.
func (p *Plan) closeOthers() {
	t, from := p.task.Table, 0
	shut := func(to uint64) {
		if uint64(from) <= to {
			p.expect[p.Call(tracer.Syscall(unix.SYS_CLOSE_RANGE, uint64(from), to, 0))] = 0
		}
	}
	for _, fd := range sortedKeys(t.wanted) {
		if fd > 0 {
			shut(uint64(fd) - 1)
		}
		from = fd + 1
	}
	shut(math.MaxUint32)
	for fd := range t.used {
		if !t.wanted[fd] {
			t.Drop(fd)
		}
	}
}

// leads: the description is to be at that number.
func (t *Table) leads(desc uint64, fd int) bool {
	return slices.ContainsFunc(t.slots[desc], func(s Slot) bool { return s.FD == fd })
}

// replace gives a description its numbers, whatever is there.
func (p *Plan) replace(desc uint64, fd int) {
	for _, s := range p.task.Table.slots[desc] {
		if s.FD == fd {
			p.setCloseOnExec(s)
			continue
		}
		p.dupTo(fd, s)
	}
	p.task.Table.made[desc] = p.task.Table.slots[desc][0].FD
}

// view is the task as a thread sees it that has a table of its own: what is planned
// there is done by that thread, in its table.
func (t *Task) view(tid int) *Task {
	th := t.Threads[tid]
	return &Task{
		ID: t.ID, Pid: th.Tid, Proc: procfs.Host().Process(th.Tid), Traced: t.Traced,
		Table: t.own[tid], Threads: t.Threads, frame: t.frame, thread: th,
	}
}

// PlanInTable starts a batch for a thread with a table of its own, which may open and
// close descriptors.
func (t *Task) PlanInTable(tid int) (*Plan, error) {
	if t.own[tid] == nil || t.Threads[tid] == nil {
		return nil, fmt.Errorf("process %d has no thread %d with a descriptor table of its own", t.ID, tid)
	}
	return t.view(tid).Plan(), nil
}

// setCloseOnExec sets the flag of a descriptor that is where it is to be.
func (p *Plan) setCloseOnExec(s Slot) {
	flag := uint64(0)
	if s.CloseOnExec {
		flag = unix.FD_CLOEXEC
	}
	p.expect[p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(s.FD), unix.F_SETFD, flag))] = 0
}

// dupTo duplicates a descriptor to where it is to be.
func (p *Plan) dupTo(fd int, s Slot) {
	flag := 0
	if s.CloseOnExec {
		flag = unix.O_CLOEXEC
	}
	p.expect[p.Call(tracer.Dup3(fd, s.FD, flag))] = int64(s.FD)
	p.task.Table.used[s.FD] = true
}
