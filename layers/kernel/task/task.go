// SPDX-License-Identifier: Apache-2.0

// Package task exports and imports processes and threads as such: the tree of
// processes with its sessions, process groups and zombies, their ids, names,
// scheduling, and what the kernel keeps for threading libraries (robust lists,
// restartable sequences, the address that is cleared at exit).
//
// The tree comes first of all: an import makes the processes while they are
// nothing yet, by a history that ends in the same tree (see plan). A process
// whose parent is outside of the container, as a session of exec, becomes a
// child of the init. Of a zombie its ids, name and status are carried, but
// neither what it used nor its user, and no mark of a core file.
//
// What processes have in common that a fork copies (memory, signal handlers,
// directories, descriptors) one of them has the records of, and the others are made by
// it or by each other. Refused are those in a namespace of their own, and such as wait
// in vfork(2).
//
// Sources: proc(5), clone(2), set_tid_address(2), set_robust_list(2), rseq(2)
// (kernel/rseq.c), sched(7).
package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// refusal is something that cannot be carried: what it is, why, and a remedy.
type refusal struct{ what, why, remedy string }

func (r *refusal) Error() string { return r.what + ": " + r.why }

// Name is what the subsystem's records are called by.
const Name = "task"

// Kinds of records.
const (
	// KindProcess: state.Process, entity 0.
	KindProcess = 1
	// KindThreads: state.Threads, entity is the first one's id.
	KindThreads = 2
	// KindTree: state.Tree, shared, entity is the first node's index. See also
	// KindSettings, KindSharing and KindGroups.
	KindTree = 3
)

// threadsPerRecord keeps records small and memory bounded.
const threadsPerRecord = 512

// Subsystem is one event's tasks.
type Subsystem struct {
	env     target.Env
	threads atomic.Uint64
	note    atomic.Pointer[string]

	mu   sync.Mutex
	kept map[record.ProcessID]*saved
	// tree is what has arrived of the tree; grown: it exists; early: another one
	// will replace it.
	tree         []*state.Node
	grown, early bool
	// shared has arrived before the tree: what processes have in common.
	shared []*state.SharedParts
	// sent is the last early tree of an export, by the processes' ids.
	sent map[uint32]*state.Node
	// terminals have arrived with the tree's first part.
	terminals []*state.Pseudoterminal
}

// saved is one process on its way in.
type saved struct {
	process *state.Process
	threads []*state.Thread
	// settings and threadSettings (by id) are nil where the image has none.
	settings       *state.ProcessSettings
	threadSettings map[int32]*state.ThreadSettings
	// groups are the threads that have not all in common with the process.
	groups []*state.ThreadGroup

	joined  bool
	settled bool
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem {
	env.WillAsk(aboutThread, aboutSettings, aboutProcess, aboutProcessSettings, aboutChildren)
	return &Subsystem{env: env, kept: map[record.ProcessID]*saved{}}
}

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Status counts threads.
func (s *Subsystem) Status() record.Status {
	st := record.Status{Entities: s.threads.Load()}
	if n := s.note.Load(); n != nil {
		st.Note = *n
	}
	return st
}

// Fault cannot be served: tasks exist once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("task: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists processes and threads.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, k := range s.kept {
		fmt.Fprintf(w, "process %d: %v, joined %v, settled %v\n", id, k.process, k.joined, k.settled)
		for _, t := range k.threads {
			fmt.Fprintf(w, "  thread %d %q\n", t.Tid, t.Comm)
		}
	}
	return nil
}
