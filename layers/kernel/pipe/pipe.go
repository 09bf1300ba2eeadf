// SPDX-License-Identifier: Apache-2.0

// Package pipe exports and imports pipes: their capacity, what is unread in
// them, and their ends, which are open file descriptions. Of FIFOs and of the
// container's standard input, which the file subsystem opens, it carries the
// unread content.
//
// Content is copied by tee(2) into a pipe of the engine: nothing is consumed,
// no offset and no flag of the application's changes. A pipe whose other end is
// held outside of the container is refused by name, unless only processes of
// sessions that were started by exec have it: theirs is as if the client had gone
// away, and what they write goes nowhere.
//
// Sources: pipe(7), tee(2), fcntl(2); fs/pipe.c.
package pipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Name is what the subsystem's records are called by.
const Name = "pipe"

// Kinds of the subsystem's records, see spec/state/pipe.proto.
const (
	KindPipe    = 1
	KindContent = 2
)

// Subsystem is one event's pipes.
type Subsystem struct {
	env target.Env

	entities, bytes atomic.Uint64

	mu sync.Mutex // guards what arrives
	in map[uint64]*arrival
	// held is the sum of the contents in memory.
	held int
}

// arrival is a pipe of the image.
type arrival struct {
	msg     *state.Pipe
	stream  []byte
	packets [][]byte
	builtBy record.ProcessID
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem { return &Subsystem{env: env, in: map[uint64]*arrival{}} }

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// SharedOnly reports that pipes are of no single process.
func (s *Subsystem) SharedOnly() bool { return true }

// Status counts pipes and unread bytes.
func (s *Subsystem) Status() record.Status {
	return record.Status{Entities: s.entities.Load(), Bytes: s.bytes.Load()}
}

// Fault cannot be served: every record exists once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("pipe: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists what the import knows.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.in)) {
		a := s.in[id]
		fmt.Fprintf(w, "pipe %d: capacity %d, %d ends, %d bytes and %d packets unread, built by process %d\n",
			id, a.msg.Capacity, len(a.msg.End), len(a.stream), len(a.packets), a.builtBy)
	}
	return nil
}
