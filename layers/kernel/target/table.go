// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// Slot is a descriptor that an open file description is to have in a process.
type Slot struct {
	FD          int
	CloseOnExec bool
}

// Table plans a descriptor table. The kernel gives every new descriptor the
// lowest free number, and only the engine's calls run in the task, so the
// engine knows each number before the call is made and a whole table is built
// in a few batches.
type Table struct {
	used  map[int]bool
	slots map[uint64][]Slot
	free  int // every number below is used
	kept  map[int]bool
	gap   int // no number below is for Aside
	// wanted are the numbers in slots.
	wanted map[int]bool
	// made says where descriptions are, by one of their descriptors.
	made map[uint64]int
	// parked are those that are here for other processes only.
	parked map[int]bool
	// transit are descriptions that the process has only for a while: see
	// Frame.Transit and Task.OwnTable.
	transit map[uint64]bool
	// carried are descriptors that MoveStdio moves out of the way.
	carried []*int
	// common: several processes have it. mu is held by the one that opens or closes
	// something where they are worked on at the same time.
	common bool
	mu     sync.Mutex
}

// LockTable keeps other processes that have the same table from opening and
// closing, until the function that it returns is called. Nothing happens where
// there are none.
func (t *Task) LockTable() (unlock func()) {
	if !t.Table.common {
		return func() {}
	}
	t.Table.mu.Lock()
	return t.Table.mu.Unlock
}

// newTable starts with the descriptors the task has now.
func newTable(open []int) *Table {
	t := &Table{
		used: map[int]bool{}, slots: map[uint64][]Slot{}, kept: map[int]bool{}, wanted: map[int]bool{},
		made: map[uint64]int{}, parked: map[int]bool{},
	}
	for _, fd := range open {
		t.used[fd] = true
	}
	return t
}

// Want says which descriptors the description desc is to have.
func (t *Table) Want(desc uint64, s Slot) {
	t.slots[desc] = append(t.slots[desc], s)
	t.wanted[s.FD] = true
}

// Made is a descriptor by which the task has desc, for itself or for others.
func (t *Table) Made(desc uint64) (fd int, ok bool) {
	fd, ok = t.made[desc]
	return fd, ok
}

// InTransit reports that the process has desc only until CloseOwn.
func (t *Table) InTransit(desc uint64) bool { return t.transit[desc] }

// Slots are the descriptors wanted for desc.
func (t *Table) Slots(desc uint64) []Slot { return t.slots[desc] }

// lowest is the number the kernel gives to the next descriptor, not below min.
func (t *Table) lowest(min int) int {
	for t.used[t.free] {
		t.free++
	}
	for fd := max(min, t.free); ; fd++ {
		if !t.used[fd] {
			return fd
		}
	}
}

// Drop notes that a descriptor is not open: a call that was to open it has
// failed. Plan.Close does it by itself.
func (t *Table) Drop(fd int) {
	delete(t.used, fd)
	delete(t.kept, fd)
	t.free, t.gap = min(t.free, fd), min(t.gap, fd)
}

// Aside is a number that is free and that no description wants: what is put
// there is in nobody's way. It stays free until a plan uses it.
func (t *Table) Aside() int {
	for t.gap <= frameSocket || t.used[t.gap] || t.wanted[t.gap] {
		t.gap++
	}
	return t.gap
}

// Keep protects a descriptor that a subsystem opened early from MoveStdio,
// until it is closed by a plan.
func (t *Table) Keep(fd int) { t.kept[fd] = true }

// Carry makes MoveStdio move a descriptor out of the way instead of closing it,
// and write its new number to *fd. Whoever asked for it closes it.
func (t *Table) Carry(fd *int) { t.carried = append(t.carried, fd) }

// At reports whether descriptor fd is open and, if the image wants it, its
// close-on-exec flag.
func (t *Table) At(fd int) (open, closeOnExec bool) {
	for _, list := range t.slots {
		for _, s := range list {
			if s.FD == fd {
				return t.used[fd], s.CloseOnExec
			}
		}
	}
	return t.used[fd], false
}

// Missing lists the wanted descriptors that are not open, in ascending order.
func (t *Table) Missing() []int {
	missing := map[int]bool{}
	for _, list := range t.slots {
		for _, s := range list {
			if !t.used[s.FD] {
				missing[s.FD] = true
			}
		}
	}
	return sortedKeys(missing)
}

// Plan collects calls that open and place descriptors.
type Plan struct {
	task   *Task
	thread *tracer.Thread // that makes the calls; nil: the leader
	calls  []tracer.Call
	expect map[int]int64 // results that are known beforehand
	quiet  map[int]bool  // calls whose failure does not matter
	pairs  []pair

	scratch *tracer.Scratch
	mark    tracer.Mark
	blocks  []*block
	outs    []output
	err     error // of a reservation, reported by Run
}

// Plan starts a batch.
func (t *Task) Plan() *Plan {
	return &Plan{task: t, thread: t.thread, expect: map[int]int64{}, quiet: map[int]bool{}}
}

// PlanOf starts a batch for a thread by its id in the image. It may neither open
// nor close descriptors.
func (t *Task) PlanOf(tid int) (*Plan, error) {
	th := t.Threads[tid]
	if th == nil {
		return nil, fmt.Errorf("process %d has no thread %d", t.ID, tid)
	}
	p := t.Plan()
	p.thread = th
	return p, nil
}

// Call appends a call whose failure fails the plan; it returns its index.
func (p *Plan) Call(c tracer.Call) int {
	p.calls = append(p.calls, c)
	return len(p.calls) - 1
}

// Expect appends a call whose result has to be want.
func (p *Plan) Expect(c tracer.Call, want int64) int {
	i := p.Call(c)
	p.expect[i] = want
	return i
}

// Quiet appends a call that may fail: see Result.
func (p *Plan) Quiet(c tracer.Call) int {
	i := p.Call(c)
	p.quiet[i] = true
	return i
}

// Open appends a call that opens one descriptor and returns the number that it
// will get.
func (p *Plan) Open(c tracer.Call) int {
	fd := p.task.Table.lowest(0)
	p.expect[p.Call(c)] = int64(fd)
	p.task.Table.used[fd] = true
	return fd
}

// DupAbove duplicates fd to the lowest free number not below min: with
// Table.Aside, to exactly that number.
func (p *Plan) DupAbove(fd, min int) int {
	n := p.task.Table.lowest(min)
	p.expect[p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_DUPFD_CLOEXEC, uint64(min)))] = int64(n)
	p.task.Table.used[n] = true
	return n
}

// Close closes a descriptor.
func (p *Plan) Close(fd int) {
	p.expect[p.Call(tracer.Close(fd))] = 0
	p.task.Table.Drop(fd)
}

// Place gives the description that descriptor fd leads to its wanted numbers
// and closes fd itself, unless it is one of them. What only other processes
// want is put aside for them (Frame.Share).
func (p *Plan) Place(desc uint64, fd int) error {
	keep, slots := false, p.task.Table.slots[desc]
	if f := p.task.frame; len(slots) == 0 && f != nil && f.Wanted(desc) {
		p.park(desc, fd)
		return nil
	}
	if len(slots) > 0 {
		p.task.Table.made[desc] = slots[0].FD
	}
	for _, s := range slots {
		if s.FD == fd {
			keep = true
			p.setCloseOnExec(s)
			continue
		}
		if p.task.Table.used[s.FD] {
			return fmt.Errorf("descriptor %d of process %d is taken twice", s.FD, p.task.ID)
		}
		p.dupTo(fd, s)
	}
	if !keep {
		p.Close(fd)
	}
	return nil
}

// park keeps a description for other processes.
func (p *Plan) park(desc uint64, fd int) {
	n := p.DupAbove(fd, p.task.Table.Aside())
	p.Close(fd)
	p.task.Table.made[desc], p.task.Table.parked[n] = n, true
}

// Run makes the calls in the task's leader and checks every result. A plan is
// run once.
func (p *Plan) Run() error {
	defer p.free()
	if err := p.send(); err != nil || len(p.calls) == 0 {
		return err
	}
	th := p.thread
	if th == nil {
		th = p.task.Traced.Leader()
	}
	if err := p.task.Traced.Run(th, p.calls); err != nil {
		return err
	}
	for i := range p.calls {
		if p.quiet[i] {
			continue
		}
		if p.calls[i].Failed() {
			return &tracer.CallError{Index: i, Call: p.calls[i]}
		}
		if want, ok := p.expect[i]; ok && p.calls[i].Ret != want {
			return fmt.Errorf("remote call %d: system call %d returned %d where %d was expected: somebody else runs in the task, or the kernel did less than asked", i, p.calls[i].Nr, p.calls[i].Ret, want)
		}
	}
	return errors.Join(p.fetch(), p.checkPairs())
}

// Result is call i's return value, valid after Run.
func (p *Plan) Result(i int) (int64, error) { return p.calls[i].Ret, p.calls[i].Errno() }

// Len is the number of calls so far.
func (p *Plan) Len() int { return len(p.calls) }

func sortedKeys(m map[int]bool) []int {
	out := make([]int, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Ints(out)
	return out
}
