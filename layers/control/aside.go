// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"

	"github.com/io-mig/mig/spec/record"
)

// asides are shared steps that were begun before their turn.
type asides map[Subsystem]*aside

type aside struct {
	done chan struct{}
	err  error // valid once done
}

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
		a := &aside{done: make(chan struct{})}
		all[sub] = a
		go func() {
			defer close(a.done)
			if a.err = x.steps(ctx, sub, x.shared(st), x.exporter(sub, x.opts.Medium)); a.err != nil {
				fail(a.err)
			}
		}()
	}
	return all
}

// has reports whether a subsystem's step was begun.
func (a asides) has(sub Subsystem) bool { return a[sub] != nil }

// parts cuts the subsystems where those begin whose steps were begun.
func (a asides) parts(subsystems []Subsystem) (parts [][]Subsystem) {
	from := 0
	for i, sub := range subsystems {
		if i > from && a.has(sub) && !a.has(subsystems[i-1]) {
			parts, from = append(parts, subsystems[from:i]), i
		}
	}
	return append(parts, subsystems[from:])
}

// join waits for the steps that were begun of some subsystems.
func (a asides) join(subsystems []Subsystem) error {
	for _, sub := range subsystems {
		if begun := a[sub]; begun != nil {
			<-begun.done
			if begun.err != nil {
				return begun.err
			}
		}
	}
	return nil
}

// wait returns when none of them is at work any more.
func (a asides) wait() {
	for _, begun := range a {
		<-begun.done
	}
}
