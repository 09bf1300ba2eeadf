// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/io-mig/mig/spec/record"
)

// fakeSubsystem exports a fixed number of records per process and checks on
// import that it receives them as the contract promises.
type fakeSubsystem struct {
	w    *world
	name string
	// steps per process in StageResidual, each of which pushes a record.
	steps int
	// shared is the same for record.Shared.
	shared     int
	concurrent bool
	aside      bool
	alone      bool   // it has shared steps only
	heals      bool   // Fault can fetch a record again
	idle       bool   // a step that never advances nor is done
	remaining  uint64 // after an early round, halved with each
	steady     bool   // not halved
	left       int    // records that it leaves behind if it may
	findings   []record.Finding

	mu   sync.Mutex
	busy map[record.ProcessID]int
}

func (s *fakeSubsystem) Name() string { return s.name }

func (s *fakeSubsystem) Concurrent(record.Header) bool { return s.concurrent }

func (s *fakeSubsystem) Aside() bool { return s.aside }

func (s *fakeSubsystem) SharedOnly() bool { return s.alone }

// enter notes two steps of one process at the same time, unless both are
// concurrent receives.
func (s *fakeSubsystem) enter(id record.ProcessID, side bool) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy == nil {
		s.busy = map[record.ProcessID]int{}
	}
	if s.busy[id] > 0 && !side {
		s.w.mu.Lock()
		s.w.violations = append(s.w.violations, fmt.Sprintf("two steps of %s/process %d at the same time", s.name, id))
		s.w.mu.Unlock()
	}
	s.busy[id]++
	return func() {
		s.mu.Lock()
		s.busy[id]--
		s.mu.Unlock()
	}
}

func (s *fakeSubsystem) Checkpoint(ctx context.Context, st record.Step, out record.Sink) (pr record.Progress, err error) {
	defer s.enter(st.Process, false)()
	if s.alone && st.Process != record.Shared {
		return pr, fmt.Errorf("%s is asked for a step of process %d", s.name, st.Process)
	}
	name := fmt.Sprintf("%s/%d %s %d", s.name, st.Process, st.Stage, st.Round)
	if st.Last {
		name += " last"
	}
	if st.Lean {
		name += " lean"
	}
	if err := s.w.call(ctx, name, nil); err != nil {
		return pr, err
	}
	if s.idle {
		return pr, nil
	}
	n := s.steps
	if st.Process == record.Shared {
		n = s.shared
	}
	switch {
	case st.Lean:
		n = 0
	case st.Stage == record.StageEarly:
		pr.Remaining = s.remaining >> (st.Round + 1)
		if s.steady {
			pr.Remaining = s.remaining
		}
		n = st.Round + 1
	case st.Stage == record.StageLeft:
		n = s.left
	}
	if st.Leave {
		n -= s.left
	}
	if st.Round >= n {
		return record.Progress{Done: true}, nil
	}
	r := &record.Record{
		Header:  record.Header{Subsystem: s.name, Process: st.Process, Kind: 1, Entity: uint64(st.Stage)<<8 + uint64(st.Round)},
		Payload: []byte(name),
	}
	if err := out.Push(ctx, r); err != nil {
		return pr, err
	}
	pr.Advanced, pr.Done = true, st.Round+1 == n
	return pr, nil
}

func (s *fakeSubsystem) Restart(ctx context.Context, st record.Step, in *record.Record) (record.Progress, error) {
	name := fmt.Sprintf("%s/%d %s", s.name, st.Process, st.Stage)
	if in != nil {
		name += fmt.Sprintf(" %#x", in.Entity)
	}
	defer s.enter(st.Process, in != nil && s.concurrent)()
	if s.alone && st.Process != record.Shared {
		return record.Progress{}, fmt.Errorf("%s is asked for a step of process %d", s.name, st.Process)
	}
	err := s.w.call(ctx, name, nil)
	return record.Progress{Done: true, Advanced: true}, err
}

func (s *fakeSubsystem) Fault(ctx context.Context, f record.Fault) error {
	if !s.heals {
		return fmt.Errorf("%s cannot fetch a record again: %w", s.name, errors.ErrUnsupported)
	}
	return s.w.call(ctx, "heal "+f.Header.String(), nil)
}

func (s *fakeSubsystem) Status() record.Status { return record.Status{Note: s.name} }

func (s *fakeSubsystem) Dump(w io.Writer) error {
	_, err := fmt.Fprintf(w, "dump of %s", s.name)
	return err
}

func (s *fakeSubsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	return s.findings, s.w.call(ctx, s.name+" preflight", nil)
}
