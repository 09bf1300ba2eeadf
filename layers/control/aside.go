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

// behind reports whether a subsystem has its turn behind one of them.
func (x *Exporter) behind(begun asides, sub Subsystem) bool {
	for _, other := range x.opts.Subsystems {
		if other == sub {
			return false
		}
		if begun.has(other) {
			return true
		}
	}
	return false
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
			if a.err = x.steps(ctx, sub, x.shared(st), x.exporter(sub, x.opts.Medium.PushData)); a.err != nil {
				fail(a.err)
			}
		}()
	}
	return all
}

// has reports whether a subsystem's step was begun.
func (a asides) has(sub Subsystem) bool { return a[sub] != nil }

// over reports whether all of them have ended.
func (a asides) over() bool {
	for _, begun := range a {
		select {
		case <-begun.done:
		default:
			return false
		}
	}
	return true
}

// wait returns when none of them is at work any more.
func (a asides) wait() {
	for _, begun := range a {
		<-begun.done
	}
}
