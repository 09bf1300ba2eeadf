// SPDX-License-Identifier: Apache-2.0

// Package clock lets CLOCK_MONOTONIC and CLOCK_BOOTTIME of a container go on in
// its copy, also on a host that was started at another time: what a program has
// noted of them stays true, and so do the absolute times for which it sleeps or
// waits (clock_nanosleep(2), futex(2)).
//
// They count from the start of the host. A time namespace (time_namespaces(7),
// Linux 5.6) adds to them what lies between the two hosts. The frame enters one
// of its own before its first fork, with calls made in it: it leaves its
// namespace for its children (unshare(2)), the engine writes the offsets, and
// the frame joins what its children would have had (setns(2)), which a process
// of one thread may. A copy of a copy gets a new one. While a container is an
// image its clocks stand still; they run while it is restored.
//
// Without time namespaces in the kernel the clocks jump to the host's, which the
// status of the restore says. The subsystem timer carries what is left of timers
// in either case. A time namespace that the spec joins by its path is others',
// too, and is left as it is.
package clock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Name is what the subsystem's records are called by.
const Name = "clock"

// Kinds of records, both state.Clocks.
const (
	KindBegin = 1
	KindStop  = 2
)

// Subsystem is one event's clocks.
type Subsystem struct {
	env target.Env

	mu     sync.Mutex
	begun  bool // KindBegin has gone out, or come in
	ended  bool // KindStop has come in
	stop   *state.Clocks
	offset *offsets
	note   string
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem { return &Subsystem{env: env} }

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Status says where the clocks could not be carried.
func (s *Subsystem) Status() record.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return record.Status{Note: s.note}
}

// Fault cannot be served: clocks are told once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("clock: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump tells the offsets.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := fmt.Fprintf(w, "clocks begun: %v, offsets to the host's %v %s\n", s.begun, s.offset, s.note)
	return err
}

// Checkpoint exports the clocks: before everything else, and when the container
// has stopped.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Process != record.Shared || step.Stage != record.StageEarly && step.Stage != record.StageResidual {
		return record.Progress{Done: true}, nil
	}
	s.mu.Lock()
	begun := s.begun
	s.begun = true
	s.mu.Unlock()
	if begun && step.Stage == record.StageEarly {
		return record.Progress{Done: true}, nil
	}
	m, err := read(s.env.Source.Init)
	if err != nil {
		return record.Progress{}, fmt.Errorf("clock: %w", err)
	}
	kinds := []uint32{KindBegin, KindStop}
	if begun {
		kinds = kinds[1:]
	} else if step.Stage == record.StageEarly {
		kinds = kinds[:1]
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return record.Progress{}, fmt.Errorf("clock: encode: %w", err)
	}
	for _, kind := range kinds {
		if err := out.Push(ctx, &record.Record{Header: record.Header{Subsystem: Name, Kind: kind}, Payload: b}); err != nil {
			return record.Progress{}, err
		}
	}
	return record.Progress{Done: true, Advanced: true, Entities: 1}, nil
}

// Restart imports them.
func (s *Subsystem) Restart(ctx context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	if in == nil {
		err := s.whole(step)
		if err == nil && step.Stage == record.StageJoin && step.Process == record.Shared {
			err = s.await(ctx)
		}
		return record.Progress{Done: true}, err
	}
	if err := s.receive(in); err != nil {
		return record.Progress{}, fmt.Errorf("clock: %s: %w", in.Header, err)
	}
	return record.Progress{Done: true, Advanced: true, Entities: 1}, nil
}

// maxTime is what the kernel takes, in nanoseconds: a clock must be able to go
// on for as long again (kernel/time/namespace.c, proc_timens_set_offset).
const maxTime = 1 << 61

// decode reads a record.
func decode(in *record.Record) (*state.Clocks, error) {
	m := &state.Clocks{}
	if err := proto.Unmarshal(in.Payload, m); err != nil {
		return nil, err
	}
	if in.Process != record.Shared || in.Kind != KindBegin && in.Kind != KindStop {
		return nil, errors.New("no record of clocks")
	}
	if m.Monotonic < 0 || m.Monotonic > maxTime || m.Boottime < 0 || m.Boottime > maxTime {
		return nil, fmt.Errorf("clocks at %d and %d ns", m.Monotonic, m.Boottime)
	}
	return m, nil
}

func (s *Subsystem) receive(in *record.Record) error {
	arrived, err := hostClocks() // now: what follows takes time, by which the clocks would lag
	if err != nil {
		return err
	}
	m, err := decode(in)
	if err != nil {
		return err
	}
	s.mu.Lock()
	begun := s.begun
	s.begun = true
	s.mu.Unlock()
	switch {
	case in.Kind == KindStop && !begun:
		return errors.New("clocks that have stopped and never begun")
	case in.Kind == KindStop:
		s.mu.Lock()
		s.ended, s.stop = true, m
		s.mu.Unlock()
		return nil
	case begun:
		return errors.New("clocks begin twice")
	}
	return s.enter(m, arrived)
}

// whole refuses clocks of which nobody said when they stopped: a process could
// see them go back.
func (s *Subsystem) whole(step record.Step) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if step.Stage == record.StageBuild && s.begun && !s.ended {
		return errors.New("clock: the image does not say what the clocks were when the container stopped")
	}
	return nil
}

// Untraced reports that an export asks no process.
func (s *Subsystem) Untraced() bool { return true }
