// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// stepFunc is Checkpoint or a record-less Restart of one subsystem.
type stepFunc func(context.Context, record.Step) (record.Progress, error)

// step makes one step and tells the watchdog if it advanced.
func (e *Event) step(ctx context.Context, sub Subsystem, st record.Step, fn stepFunc) (record.Progress, error) {
	var pr record.Progress
	p := Place{Call: "step", Subsystem: sub.Name(), Process: st.Process, Stage: st.Stage, Round: st.Round}
	err := e.call(ctx, p, func(ctx context.Context) (err error) {
		got, err := fn(ctx, st)
		if err == nil {
			pr = got
		}
		return err
	})
	if err != nil {
		return record.Progress{}, err
	}
	if pr.Advanced || pr.Done {
		e.dog.touch()
	}
	return pr, nil
}

// steps makes steps until the subsystem is done with the stage and process. One
// that does not advance is asked again more and more slowly, until it does or
// the watchdog ends the event.
func (e *Event) steps(ctx context.Context, sub Subsystem, st record.Step, fn stepFunc) error {
	const slowest = 50 * time.Millisecond
	pause := time.Millisecond
	for ; ; st.Round++ {
		pr, err := e.step(ctx, sub, st, fn)
		switch {
		case err != nil:
			return err
		case pr.Done:
			return nil
		case pr.Advanced:
			pause = time.Millisecond
			continue
		}
		if err := sleep(ctx, pause); err != nil {
			return &PlaceError{Place: Place{Call: "step", Subsystem: sub.Name(), Process: st.Process, Stage: st.Stage, Round: st.Round}, Err: err}
		}
		pause = min(2*pause, slowest)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// exporter is a subsystem's Checkpoint with a sink that seals its records,
// holds it to its own name and has them pushed into the medium.
func (e *Event) exporter(sub Subsystem, push func(context.Context, *record.Record) error) stepFunc {
	name := sub.Name()
	sink := record.SinkFunc(func(ctx context.Context, r *record.Record) error {
		if r.Subsystem != name {
			return &DefectError{What: fmt.Sprintf("subsystem %s exports a record of %q", name, r.Subsystem)}
		}
		if err := r.Seal(); err != nil {
			return &DefectError{What: err.Error()}
		}
		if err := push(ctx, r); err != nil {
			return fmt.Errorf("push %s: %w", r.Header, err)
		}
		e.passed(len(r.Payload))
		return nil
	})
	return func(ctx context.Context, st record.Step) (record.Progress, error) {
		return sub.Checkpoint(ctx, st, sink)
	}
}

// builder is a subsystem's Restart without a record.
func builder(sub Subsystem) stepFunc {
	return func(ctx context.Context, st record.Step) (record.Progress, error) { return sub.Restart(ctx, st, nil) }
}

// checkSubsystems refuses names that records could not be routed by.
func checkSubsystems(subs []Subsystem) error {
	seen := map[string]bool{}
	for _, s := range subs {
		switch n := s.Name(); {
		case n == "" || len(n) > record.MaxSubsystem || n == markName:
			return &DefectError{What: fmt.Sprintf("%q cannot be the name of a subsystem", n)}
		case seen[n]:
			return &DefectError{What: fmt.Sprintf("two subsystems are named %s", n)}
		default:
			seen[n] = true
		}
	}
	return nil
}
