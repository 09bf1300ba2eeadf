// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// imported is what has arrived. It is guarded by Subsystem.mu while records
// arrive; later stages only read it, but for built.
type imported struct {
	tables  map[record.ProcessID]*table
	open    map[uint64]*state.OpenFile
	objects map[uint64]bool // that this subsystem made
	owners  map[uint64]*state.FileOwner
	// built names the process in which a description was made.
	built map[uint64]record.ProcessID
}

// table is one process's.
type table struct {
	// listed: a part of the table has arrived, which may be an empty one.
	listed  bool
	fds     map[uint32]bool
	posix   []*state.RangeLock
	working *state.WorkingFiles
	// threads are the directories of threads that have their own.
	threads map[int]*state.WorkingFiles
	// own are the tables of threads that have their own.
	own map[int]*ownTable
}

// ownTable is a descriptor table that threads have and their process has not.
type ownTable struct {
	fds   map[uint32]bool
	posix []*state.RangeLock
}

func newImported() *imported {
	return &imported{
		tables: map[record.ProcessID]*table{}, open: map[uint64]*state.OpenFile{},
		objects: map[uint64]bool{}, owners: map[uint64]*state.FileOwner{}, built: map[uint64]record.ProcessID{},
	}
}

func sortedIDs[V any](m map[uint64]V) []uint64 { return slices.Sorted(maps.Keys(m)) }

// Restart imports.
func (s *Subsystem) Restart(_ context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	var n uint64
	var err error
	switch {
	case step.Stage == record.StageReceive:
		n, err = s.receive(in)
	case step.Process == record.Shared && step.Stage == record.StageBuild:
		n, err = s.build()
	case step.Process == record.Shared && step.Stage == record.StageJoin:
		// By now the subsystems behind this one have made theirs, too. Subsystem task
		// has had it done where threads have tables of their own.
		err = s.env.Frame.Share()
	case step.Process == record.Shared:
	case step.Stage == record.StageSettle:
		err = s.settle(step.Process)
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("file: %w", err)
	}
	return record.Progress{Done: true, Advanced: true, Entities: n}, nil
}

// receive takes one record. Tables and descriptions are kept; nameless files
// are made and filled at once, in the first process, so that no content is
// held in memory.
func (s *Subsystem) receive(r *record.Record) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (r.Kind == KindTable || r.Kind == KindWorking || r.Kind == KindThreadTable) != (r.Process != record.Shared) {
		return 0, fmt.Errorf("%s: this kind does not belong to process %d", r.Header, r.Process)
	}
	switch r.Kind {
	case KindTable:
		return 0, s.receiveTable(r)
	case KindThreadTable:
		return 0, s.receiveThreadTable(r)
	case KindWorking:
		w, err := decodeWorking(r)
		if err == nil {
			err = s.tableOf(r.Process).addWorking(r, w)
		}
		return 0, err
	case KindOpen:
		f, err := decodeOpen(r)
		if err == nil {
			s.in.open[r.Entity] = f
			s.entities.Add(1)
		}
		return 1, err
	case KindObject:
		err := s.env.Frame.MakeObject(r)
		s.in.objects[r.Entity] = err == nil
		return 1, err
	case KindContent:
		n, err := s.env.Frame.FillObject(r)
		s.bytes.Add(n)
		return 0, err
	case KindOwner:
		return 0, s.receiveOwner(r)
	}
	return 0, fmt.Errorf("%s: kind %d is not known", r.Header, r.Kind)
}

// maxThread is the largest id of a thread, PID_MAX_LIMIT.
const maxThread = 4 << 20

// addWorking keeps the directories of the process, or of one of its threads.
func (t *table) addWorking(r *record.Record, w *state.WorkingFiles) error {
	if r.Entity == 0 {
		t.working = w
		return nil
	}
	if r.Entity > maxThread || t.threads[int(r.Entity)] != nil {
		return fmt.Errorf("%s: no such thread, or it has directories already", r.Header)
	}
	if t.threads == nil {
		t.threads = map[int]*state.WorkingFiles{}
	}
	t.threads[int(r.Entity)] = w
	return nil
}

func (s *Subsystem) tableOf(id record.ProcessID) *table {
	t := s.in.tables[id]
	if t == nil {
		t = &table{fds: map[uint32]bool{}}
		s.in.tables[id] = t
	}
	return t
}

// receiveTable tells the plan of the descriptor table what is wanted.
func (s *Subsystem) receiveTable(r *record.Record) error {
	// One that has its memory in common with another has no records of memory, with
	// which it would have been made; and which table it has is settled with its children.
	if err := s.env.Frame.NeedAll(); err != nil {
		return err
	}
	task, err := s.env.Frame.Stopped(r.Process)
	if err != nil {
		return err
	}
	msg, err := decodeTable(r)
	if err != nil {
		return err
	}
	if task.SharesTable && len(msg.Slot)+len(msg.PosixLock) > 0 {
		return fmt.Errorf("process %d: it has descriptors of its own, and those of the process that made it", r.Process)
	}
	t := s.tableOf(r.Process)
	t.listed = true
	t.posix = append(t.posix, msg.PosixLock...)
	if err := want(task.Table, t.fds, msg.Slot); err != nil {
		return fmt.Errorf("process %d: %w", r.Process, err)
	}
	return nil
}

// want tells a plan what is wanted; fds are those that it was told before.
func want(table *target.Table, fds map[uint32]bool, list []*state.DescriptorSlot) error {
	for _, slot := range list {
		if fds[slot.Fd] {
			return fmt.Errorf("descriptor %d is in the table twice", slot.Fd)
		}
		fds[slot.Fd] = true
		table.Want(slot.Description, target.Slot{FD: int(slot.Fd), CloseOnExec: slot.CloseOnExec})
	}
	return nil
}

// receiveThreadTable is receiveTable for a table that threads have of their own. Which
// threads these are, subsystem task is told.
func (s *Subsystem) receiveThreadTable(r *record.Record) error {
	if err := s.env.Frame.NeedAll(); err != nil {
		return err
	}
	task, err := s.env.Frame.Stopped(r.Process)
	if err != nil {
		return err
	}
	tid, msg, err := decodeThreadTable(r)
	if err != nil {
		return err
	}
	t := s.tableOf(r.Process)
	if t.own == nil {
		t.own = map[int]*ownTable{}
	}
	if t.own[tid] == nil {
		t.own[tid] = &ownTable{fds: map[uint32]bool{}}
	}
	own := t.own[tid]
	own.posix = append(own.posix, msg.PosixLock...)
	if err := want(task.OwnTable(tid), own.fds, msg.Slot); err != nil {
		return fmt.Errorf("thread %d of process %d: %w", tid, r.Process, err)
	}
	return nil
}
