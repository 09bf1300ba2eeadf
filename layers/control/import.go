// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// Importer is one import. See Import.
type Importer struct {
	*Event
	opts   ImportOptions
	byName map[string]Subsystem

	// Owned by the event's goroutine:

	// held are the processes whose frames were taken over, parents first.
	held    []record.ProcessID
	touched bool
	closed  bool
	arrived time.Time // of the last record before the switch
	more    bool      // records follow after the switch
}

// NewImport prepares an import without touching anything.
func NewImport(o ImportOptions) *Importer {
	m := &Importer{Event: newEvent(SideImport, o.Tuning, o.Subsystems), opts: o, byName: map[string]Subsystem{}}
	for _, s := range o.Subsystems {
		m.byName[s.Name()] = s
	}
	return m
}

// Import runs an import to its end: the container's frame becomes the image's
// tasks and runs. Any failure before a task was let go leaves nothing of the
// copy. A failure is an *Error; an error that wraps a *StuckError obliges the
// caller to end its process.
func Import(ctx context.Context, o ImportOptions) (Result, error) { return NewImport(o).Run(ctx) }

// Run runs the import. It may be called once.
func (m *Importer) Run(ctx context.Context) (Result, error) {
	live, stop := m.start(ctx)
	defer stop()
	for _, part := range []func(context.Context) error{m.negotiate, m.setup, m.receive, m.build, m.ready} {
		if err := part(live); err != nil {
			return m.undo(ctx, err, false)
		}
	}
	return m.run(context.WithoutCancel(ctx))
}

// negotiate compares what the stream holds with what we have, before anything
// is built.
func (m *Importer) negotiate(ctx context.Context) error {
	if err := errors.Join(m.to(StateNegotiating), checkSubsystems(m.opts.Subsystems)); err != nil || m.opts.Manifest == nil {
		return err
	}
	var names []string
	err := m.call(ctx, Place{Call: "manifest"}, func(ctx context.Context) error {
		got, err := m.opts.Manifest(ctx)
		if err == nil {
			names = slices.Clone(got)
		}
		return err
	})
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return m.byName[n] != nil || n == markName })
	if len(names) > 0 {
		slices.Sort(names)
		return &UnknownSubsystemError{Names: slices.Compact(names)}
	}
	return nil
}

// setup takes over the frame.
func (m *Importer) setup(ctx context.Context) error {
	if err := m.to(StateSetup); err != nil {
		return err
	}
	if err := m.takeNew(ctx); err != nil {
		return err
	}
	if len(m.held) == 0 {
		return errors.New("the frame has no process")
	}
	if m.opts.Prepared == nil {
		return nil
	}
	return m.call(ctx, Place{Call: "prepared"}, m.opts.Prepared)
}

// takeNew takes over the processes that have appeared since the last look:
// first the frame's one process, later those that it was made to fork.
func (m *Importer) takeNew(ctx context.Context) error {
	for range maxHolds {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		m.touched = true
		ids, err := list(ctx, m.Event, "hold", m.opts.Container.Hold)
		if err != nil {
			return err
		}
		fresh := without(ids, m.held)
		if len(fresh) == 0 {
			m.update(func(r *Result) { r.Processes = len(m.held) })
			return nil
		}
		held, err := takeHold(ctx, m.Event, m.opts.Container, fresh)
		m.held = append(m.held, held...)
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("the frame still shows new processes after %d looks", maxHolds)
}

// stageStates are the states that the import's stages have, in their order.
var stageStates = map[record.Stage]State{
	record.StageBuild: StateBuilding, record.StageJoin: StateJoining,
	record.StageSettle: StateSettling, record.StageResume: StateArming,
}

// build goes through the stages that have no records. Those between which no process
// is made are one run: to leave the processes' place and to come back to it takes as
// long as most steps.
func (m *Importer) build(ctx context.Context) error {
	for left := record.ImportStages; len(left) > 0; {
		if at := stageStates[left[0]]; m.current() != at {
			if err := m.to(at); err != nil {
				return err
			}
		}
		if err := m.takeNew(ctx); err != nil {
			return err
		}
		held := slices.Clone(m.held)
		rest := make(chan []record.Stage, 1)
		err := m.sheltered(ctx, func(ctx context.Context) error {
			return m.resident(ctx, held, func(ctx context.Context) error {
				after, err := m.buildStages(ctx, left, held)
				rest <- after
				return err
			})
		})
		if err != nil {
			return err
		}
		left = <-rest
	}
	return nil
}

// buildStages makes stages, the first of which the event has come to, as long as the
// frame shows no other process than those that are held. It returns those that are
// left, if any.
func (m *Importer) buildStages(ctx context.Context, stages []record.Stage, held []record.ProcessID) ([]record.Stage, error) {
	for {
		for _, sub := range m.opts.Subsystems {
			if err := m.buildOne(ctx, stages[0], sub, held); err != nil {
				return nil, err
			}
		}
		if stages = stages[1:]; len(stages) == 0 {
			return nil, nil
		}
		if err := m.to(stageStates[stages[0]]); err != nil {
			return nil, err
		}
		ids, err := list(ctx, m.Event, "hold", m.opts.Container.Hold)
		if err != nil || len(without(ids, held)) > 0 {
			return stages, err
		}
	}
}

func (m *Importer) buildOne(ctx context.Context, st record.Stage, sub Subsystem, held []record.ProcessID) error {
	fn := builder(sub)
	if err := m.steps(ctx, sub, record.Step{Stage: st}, fn); err != nil {
		return err
	}
	if sharedOnly(sub) {
		return nil
	}
	return m.each(ctx, held, func(ctx context.Context, id record.ProcessID) error {
		return m.steps(ctx, sub, record.Step{Stage: st, Process: id}, fn)
	})
}

// MoreFollows reports whether state was left behind at the switch. It may be
// asked from Ready on.
func (m *Importer) MoreFollows() bool { return m.more }

// ready waits for the permission to run.
func (m *Importer) ready(ctx context.Context) error {
	if err := m.to(StateReady); err != nil {
		return err
	}
	if m.opts.Ready != nil {
		if err := m.call(ctx, Place{Call: "ready"}, m.opts.Ready); err != nil {
			return err
		}
		return m.to(StateCommitted)
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return m.to(StateCommitted)
}
