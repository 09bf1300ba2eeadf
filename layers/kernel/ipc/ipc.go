// SPDX-License-Identifier: Apache-2.0

// Package ipc exports and imports what a container keeps in its IPC namespace
// beside its processes: System V shared memory, semaphores and message queues
// with their identifiers and content, and POSIX message queues with their messages.
//
// The engine reads the objects from a thread of its own in the namespace. On
// import the container's first process makes them, with the identifiers they
// had (/proc/sys/kernel/{shm,sem,msg}_next_id) and as the user that made them,
// so that they are charged to the container; they get their owner and mode when
// the processes are about to run, since the frame has to use them before.
// Whoever attaches shared memory is the subsystem memory's business. That of huge
// pages is made where the live spec gives the right to make it, and nowhere else.
//
// Not carried are the times and process ids that the kernel keeps of the last
// calls. What a process has to take back at its end (SEM_UNDO of semop(2))
// cannot be read, and is refused: see undo.go.
//
// An IPC namespace that is not the container's own (a pod's, the host's)
// outlives the container, and is none of this package's business.
//
// Sources: sysvipc(7), mq_overview(7), ipc_namespaces(7), /proc/sysvipc in
// proc(5), msgop(2) MSG_COPY; ipc/{shm,sem,msg,util}.c, ipc/mqueue.c.
package ipc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Name is what the subsystem's records are called by.
const Name = "ipc"

// Kinds of records; all are shared. See spec/state/ipc.proto.
const (
	// KindSegment: state.SharedSegment, entity is its number in the image.
	KindSegment = 1
	// KindContent: raw bytes of a segment; see target.ContentEntity.
	KindContent = 2
	// KindSemaphores: state.SemaphoreSet, entity is its id.
	KindSemaphores = 3
	// KindQueue: state.MessageQueue, entity is its id.
	KindQueue = 4
	// KindMessages: state.QueuedMessages, entity is the queue's id.
	KindMessages = 5
	// KindPosixQueue: state.PosixQueue, entity is its number in the image.
	KindPosixQueue = 6
	// KindPosixMessages: state.QueuedPosixMessages, entity is the queue's number.
	KindPosixMessages = 7
	// KindHugeSegment: state.SharedSegment of huge pages, entity is its number in
	// the image. Earlier versions, which would make small pages, do not know it.
	KindHugeSegment = 8
)

// refusal is something that cannot be carried: what it is, why, and a remedy.
type refusal struct{ what, why, remedy string }

func (r *refusal) Error() string { return r.what + ": " + r.why }

// Subsystem is one event's IPC namespace.
type Subsystem struct {
	env                    target.Env
	bytes, total, entities atomic.Uint64

	// Control calls Checkpoint and Restart for what is shared one at a time.

	listed   bool
	todo     []*content // of segments, not exported yet
	segments []*segment // of an import, in the order of their numbers
	posix    []*openQueue
	owners   []owner // that are to be set when all is made
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem { return &Subsystem{env: env} }

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Preflight names what cannot be carried.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	if !s.env.Source.OwnIPC {
		return nil, nil
	}
	var out []record.Finding
	var found objects
	err := s.inside(func() (err error) {
		found, err = list()
		return err
	})
	if procfs.IsGone(err) {
		return nil, nil // it has ended: there is nothing to lose any more
	}
	var r *refusal
	switch {
	case errors.As(err, &r):
		out = append(out, record.Finding{FD: -1, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy})
	case err != nil:
		return nil, fmt.Errorf("ipc: pid %d: %w", s.env.Source.Init, err)
	}
	huge, err := s.refuseHuge()
	if err != nil {
		return nil, fmt.Errorf("ipc: pid %d: %w", s.env.Source.Init, err)
	}
	out = append(out, huge...)
	if len(found.sem) == 0 {
		return out, nil
	}
	undo, err := s.env.Source.Survey(ctx, s.undo)
	if err != nil {
		return nil, fmt.Errorf("ipc: %w", err)
	}
	return append(out, undo...), nil
}

// inside runs fn on a thread that is in the container's IPC namespace.
func (s *Subsystem) inside(fn func() error) error {
	pid := 0
	if s.env.Source != nil {
		pid = s.env.Source.Init
	} else {
		pid = s.env.Frame.Init
	}
	return target.InNamespace(procfs.Host().Process(pid).Path("ns/ipc"), fn)
}

// SharedOnly reports that what System V and POSIX made is the container's.
func (s *Subsystem) SharedOnly() bool { return true }

// Aside reports that nobody is in the way: the objects are the container's, not its processes', and no subsystem
// does anything to them.
func (s *Subsystem) Aside() bool { return true }

// Status counts the bytes of segments.
func (s *Subsystem) Status() record.Status {
	return record.Status{Entities: s.entities.Load(), Bytes: s.bytes.Load(), Total: s.total.Load()}
}

// Fault cannot be served.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("ipc: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists what an import has made.
func (s *Subsystem) Dump(w io.Writer) error {
	for _, g := range s.segments {
		fmt.Fprintf(w, "segment %d: %d bytes\n", g.msg.Object.Id, g.msg.Size)
	}
	for _, o := range s.owners {
		fmt.Fprintf(w, "%s %d\n", o.kind.name, o.object.Id)
	}
	return nil
}
