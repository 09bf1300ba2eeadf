// SPDX-License-Identifier: Apache-2.0

// Package event exports and imports the descriptions that programs wait on:
// eventfd(2), timerfd_create(2), signalfd(2), epoll(7), inotify(7),
// fanotify(7) and pidfd_open(2). Their state is in /proc/PID/fdinfo; nothing is
// asked of the process itself.
//
// Registrations of an epoll instance come after every descriptor has its final
// number, timers last of all. A level-triggered registration needs no more
// state than the kernel shows. An edge-triggered one whose file is ready
// reports once more after a restore: programs have to expect that of any edge.
//
// A pidfd of a process that is gone leads to a process that was made for it and
// ended in the same way: see process.go.
//
// The files that an inotify instance watches are found by their inodes: see
// find.go. Events that nobody has read can only be taken, which no look into a
// running container may do: instead of them the copy reads an overflow, after
// which programs look at everything again.
//
// The marks of a fanotify group are found in the same way, those of mounts and
// file systems by mount points: see mark.go. Refused by name are groups that
// decide what others may do.
//
// Sources: proc_pid_fdinfo(5); eventfd(2); timerfd_create(2); signalfd(2);
// epoll(7); fs/eventpoll.c, fs/timerfd.c; kcmp(2).
package event

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Name is what the subsystem's records are called by.
const Name = "event"

// Kinds of the subsystem's records, see spec/state/event.proto.
const (
	KindCounter = 1
	KindTimer   = 2
	KindSignal  = 3
	KindPoll    = 4
	KindProcess = 5
	KindFiles   = 6
	KindGroup   = 7
)

// Subsystem is one event's waiting descriptions.
type Subsystem struct {
	env      target.Env
	entities atomic.Uint64

	mu sync.Mutex // guards in while records arrive, built always
	in map[uint64]proto.Message
	// built names the process in which a description was made.
	built map[uint64]record.ProcessID
	// ended numbers the ended processes of pidfds by the inodes of these.
	ended map[uint64]uint32
	// paths are where watched files were found: each is looked at again before
	// it is used.
	paths map[watchedFile]string
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem {
	return &Subsystem{env: env, in: map[uint64]proto.Message{}, built: map[uint64]record.ProcessID{}, ended: map[uint64]uint32{}, paths: map[watchedFile]string{}}
}

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Keeps reports that nothing is done before the stages without records.
func (s *Subsystem) Keeps() bool { return true }

// Status counts descriptions.
func (s *Subsystem) Status() record.Status { return record.Status{Entities: s.entities.Load()} }

// Fault cannot be served: every record exists once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("event: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists what the import knows.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.in)) {
		fmt.Fprintf(w, "description %d: %T %v, built by process %d\n", id, s.in[id], s.in[id], s.built[id])
	}
	return nil
}

// Untraced reports that an export asks nothing of a tracer.
func (s *Subsystem) Untraced() bool { return true }
