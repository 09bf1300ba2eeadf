// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/container"
	"github.com/io-mig/mig/layers/kernel/onthread"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/pipe"
	"github.com/io-mig/mig/spec/record"
)

// movePatience bounds a move as a whole.
const movePatience = 60 * time.Second

// Moved is what a move reports of both sides.
type Moved struct {
	Source, Destination control.Result
	// Notes are the subsystems' last words on the source.
	Notes []string

	mu    sync.Mutex
	line  []control.Transition
	calls []Call
}

// observe notes the transitions of both sides.
func (m *Moved) observe(t control.Transition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.line = append(m.line, t)
}

// longCall is what a time line shows of calls.
const longCall = 50 * time.Microsecond

// TimeLine says when either side came into its states, since the source began to
// stop the container, and which calls took long.
func (m *Moved) TimeLine() string {
	type entry struct {
		at   time.Time
		text string
	}
	zero := m.At(control.SideExport, control.StateHolding)
	var all []entry
	for _, t := range m.Transitions() {
		all = append(all, entry{t.At, fmt.Sprintf("%s: %s", t.Side, t.To)})
	}
	for _, c := range m.Calls() {
		if took := c.Ended.Sub(c.Began); took >= longCall && c.Place.Call != "pop record" {
			all = append(all, entry{c.Began, fmt.Sprintf("%s:   %s, %d us", c.Side, c.Place, took.Microseconds())})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, e := range all {
		if !zero.IsZero() && !e.at.Before(zero) {
			fmt.Fprintf(&b, "%8d us  %s\n", e.at.Sub(zero).Microseconds(), e.text)
		}
	}
	return b.String()
}

// Call is one call of either side's control.
type Call struct {
	Side         control.Side
	Place        control.Place
	Began, Ended time.Time
}

// called notes the calls of a side.
func (m *Moved) called(side control.Side) func(control.Place, time.Time, time.Time) {
	return func(p control.Place, began, ended time.Time) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.calls = append(m.calls, Call{side, p, began, ended})
	}
}

// Calls are those of both sides, in the order of their ends.
func (m *Moved) Calls() []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls)
}

// Transitions are those of both sides.
func (m *Moved) Transitions() []control.Transition {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.line)
}

// At is when a side came into a state.
func (m *Moved) At(side control.Side, s control.State) time.Time {
	for _, t := range m.Transitions() {
		if t.Side == side && t.To == s {
			return t.At
		}
	}
	return time.Time{}
}

// Move moves the container through a pipe in memory, by the real control of
// both sides, and returns the copy. The original is gone afterwards; on error it
// runs on, and nothing is left of the copy.
func (c *Container) Move(s control.Strategy, constructors ...Constructor) (*Container, *Moved, error) {
	w, r := pipe.New(pipe.DefaultBound)
	ctx, cancel := context.WithTimeout(context.Background(), movePatience)
	defer cancel()
	src, err := c.source()
	if err != nil {
		return nil, nil, err
	}
	n, frame, done, err := c.frame()
	if err != nil {
		return nil, nil, err
	}
	defer done()
	if _, err := w.Command(ctx, record.Command{Verb: medium.VerbManifest, Body: []byte("{}")}); err != nil {
		n.Stop()
		return nil, nil, err
	}
	ready, commit := make(chan struct{}), make(chan error, 1)
	prepared := make(chan struct{})
	isPrepared := sync.OnceFunc(func() { close(prepared) })
	m := &Moved{}
	sources := instances(target.Env{Source: src, Workers: 2}, constructors)
	link := link{pullers: map[string]kernel.Puller{}, commanders: map[string]kernel.Commander{}}
	for _, s := range sources {
		if p, ok := s.(kernel.Puller); ok {
			link.pullers[s.Name()] = p
		}
		if c, ok := s.(kernel.Commander); ok {
			link.commanders[s.Name()] = c
		}
	}
	copies := instances(target.Env{Frame: frame, Workers: 2, Peer: link}, constructors)
	onSource, _ := onthread.Wrap(sources, container.Source{Source: src}.Traced)
	onDestination, _ := onthread.Wrap(copies, container.Frame{Frame: frame}.Traced)
	imported := make(chan error, 1)
	go func() {
		var err error
		m.Destination, err = control.Import(ctx, control.ImportOptions{
			Tuning: control.Tuning{Workers: 2, Observer: m.observe, Called: m.called(control.SideImport), Reside: container.Frame{Frame: frame}.Reside}, Container: container.Frame{Frame: frame}, Medium: r,
			Subsystems: onDestination,
			Prepared: func(ctx context.Context) error {
				defer isPrepared()
				return prepare(ctx, copies)
			},
			Ready: func(ctx context.Context) error {
				close(ready)
				select {
				case err := <-commit:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		})
		isPrepared() // the source finds out by itself what is wrong
		imported <- err
	}()
	out := control.NewExport(control.ExportOptions{
		Tuning: control.Tuning{Workers: 2, Observer: m.observe, Called: m.called(control.SideExport), Reside: container.Source{Source: src}.Reside}, Container: container.Source{Source: src}, Medium: w, Strategy: s,
		Subsystems: onSource,
		Prepare: func(ctx context.Context) error {
			select {
			case <-prepared:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		Switch: func(ctx context.Context) (control.Verdict, error) {
			select {
			case <-ready:
				commit <- nil
				return control.VerdictCommit, nil
			case <-ctx.Done():
				return control.VerdictAbort, ctx.Err()
			}
		},
	})
	m.Source, err = out.Run(ctx)
	for _, s := range out.Status().Subsystems {
		if s.Note != "" {
			m.Notes = append(m.Notes, s.Name+": "+s.Note)
		}
	}
	if err != nil {
		commit <- err
		err = errors.Join(err, <-imported)
		n.Stop()
		return nil, m, fmt.Errorf("move pid %d: %w%s", c.Pid, err, c.errors.String())
	}
	if err := <-imported; err != nil {
		n.Stop()
		return nil, m, fmt.Errorf("the copy: %w%s", err, n.errors.String())
	}
	c.Stop()
	return n, m, nil
}

// prepare prepares a copy's memory. What others prepare is the host's, of which a
// test has one only.
func prepare(ctx context.Context, copies []kernel.Subsystem) error {
	for _, s := range copies {
		if p, ok := s.(kernel.Preparer); ok && s.Name() == "memory" {
			return p.Prepare(ctx)
		}
	}
	return nil
}

// link is a copy's way to the subsystems of its source, in memory.
type link struct {
	pullers    map[string]kernel.Puller
	commanders map[string]kernel.Commander
}

func (l link) Command(ctx context.Context, c record.Command) (record.Command, error) {
	s := l.commanders[c.To]
	if s == nil || c.To != "memory" {
		return record.Command{}, errors.ErrUnsupported
	}
	return s.Command(ctx, c)
}

func (l link) Pull(ctx context.Context, want record.Pull) (*record.Record, func(), error) {
	s := l.pullers[want.Subsystem]
	if s == nil {
		return nil, nil, fmt.Errorf("nobody gives out %s: %w", want.Subsystem, errors.ErrUnsupported)
	}
	r, done, err := s.Pull(ctx, want)
	if err != nil {
		return nil, nil, err
	}
	return r, done, r.Seal()
}
