// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"

	"github.com/io-mig/mig/spec/record"
)

// asides are shared steps that were begun before their turn.
type asides map[Subsystem]chan error

// shared is the step for what belongs to no process.
func (x *Exporter) shared(st record.Stage) record.Step {
	return record.Step{Stage: st, Leave: x.leave && st == record.StageResidual}
}

// beginAside begins the residual steps of those that may run beside others. Only
// a move of which early rounds were made has them: a file is written in its
// order. A failure ends the stage.
func (x *Exporter) beginAside(ctx context.Context, fail context.CancelCauseFunc, st record.Stage) asides {
	if st != record.StageResidual || x.opts.Switch == nil || !x.ahead || x.tune.Workers < 2 {
		return nil
	}
	all := asides{}
	for _, sub := range x.opts.Subsystems {
		if a, ok := sub.(AsideExporter); !ok || !a.Aside() {
			continue
		}
		done := make(chan error, 1)
		all[sub] = done
		go func() {
			err := x.steps(ctx, sub, x.shared(st), x.exporter(sub, x.opts.Medium))
			if err != nil {
				fail(err)
			}
			done <- err
		}()
	}
	return all
}

// join waits for a subsystem's step, or makes it if it was not begun.
func (a asides) join(sub Subsystem, step func() error) error {
	done := a[sub]
	if done == nil {
		return step()
	}
	delete(a, sub)
	return <-done
}

// wait returns when none of those that nobody has joined is at work any more.
func (a asides) wait() {
	for _, done := range a {
		<-done
	}
}
