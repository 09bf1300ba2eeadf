// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/spec/record"
)

// timed is a subsystem that knows how long its steps took, for the status: who
// wants a shorter silence needs to know whose it is.
type timed struct {
	kernel.Subsystem
	took atomic.Int64 // nanoseconds, of all workers together
}

// forControl gives the instances the type that control declares.
func forControl(subsystems []kernel.Subsystem) ([]control.Subsystem, map[string]*timed) {
	out := make([]control.Subsystem, len(subsystems))
	byName := map[string]*timed{}
	for i, s := range subsystems {
		t := &timed{Subsystem: s}
		out[i], byName[s.Name()] = t, t
	}
	return out, byName
}

func (t *timed) count(start time.Time) { t.took.Add(int64(time.Since(start))) }

// Checkpoint is the subsystem's, timed.
func (t *timed) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	defer t.count(time.Now())
	return t.Subsystem.Checkpoint(ctx, step, out)
}

// Restart is the subsystem's, timed.
func (t *timed) Restart(ctx context.Context, step record.Step, in *record.Record) (record.Progress, error) {
	defer t.count(time.Now())
	return t.Subsystem.Restart(ctx, step, in)
}

// Preflight asks the subsystem if it has something to say.
func (t *timed) Preflight(ctx context.Context) ([]record.Finding, error) {
	if p, ok := t.Subsystem.(control.Preflighter); ok {
		return p.Preflight(ctx)
	}
	return nil, nil
}

// Concurrent asks the subsystem; one that says nothing wants its records one
// by one.
func (t *timed) Concurrent(h record.Header) bool {
	c, ok := t.Subsystem.(control.ConcurrentReceiver)
	return ok && c.Concurrent(h)
}
