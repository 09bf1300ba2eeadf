// SPDX-License-Identifier: Apache-2.0

// Package onthread runs the steps of subsystems on the thread that traces the process
// in question, and takes their time: for whoever hands subsystems to control.
package onthread

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
)

// Subsystem knows how long its steps took, for the status: who wants a shorter
// silence needs to know whose it is.
type Subsystem struct {
	kernel.Subsystem
	took atomic.Int64 // nanoseconds, of all workers together
	// traced finds the tracee of a process; nil if it has none now.
	traced func(record.ProcessID) *tracer.Process
}

// Wrap gives instances the type that control declares. traced finds the tracee of a
// process; nil if it has none now. The second result is the same by name.
func Wrap(subsystems []kernel.Subsystem, traced func(record.ProcessID) *tracer.Process) ([]control.Subsystem, map[string]*Subsystem) {
	out := make([]control.Subsystem, len(subsystems))
	byName := map[string]*Subsystem{}
	for i, s := range subsystems {
		t := &Subsystem{Subsystem: s, traced: traced}
		out[i], byName[s.Name()] = t, t
	}
	return out, byName
}

// Took is how long the steps have taken so far, of all workers together.
func (t *Subsystem) Took() time.Duration { return time.Duration(t.took.Load()) }

func (t *Subsystem) count(start time.Time) { t.took.Add(int64(time.Since(start))) }

// Checkpoint is the subsystem's, timed, on the tracer's thread if it has use for
// that.
func (t *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (p record.Progress, err error) {
	defer t.count(time.Now())
	if t.untraced() {
		return t.Subsystem.Checkpoint(ctx, step, out)
	}
	err = t.onThread(step, func() error {
		p, err = t.Subsystem.Checkpoint(ctx, step, out)
		return err
	})
	return p, err
}

// Restart is the subsystem's, timed. Records that may be taken at the same time
// are; all else that touches a process happens on the tracer's thread.
func (t *Subsystem) Restart(ctx context.Context, step record.Step, in *record.Record) (p record.Progress, err error) {
	defer t.count(time.Now())
	if in != nil && (t.Concurrent(in.Header) || t.keeps()) {
		return t.Subsystem.Restart(ctx, step, in)
	}
	err = t.onThread(step, func() error {
		p, err = t.Subsystem.Restart(ctx, step, in)
		return err
	})
	return p, err
}

// onThread runs a step of one process on the thread that traces it. A step
// makes dozens of ptrace requests, and each would wake that thread and wait for
// it: tens of microseconds apiece, of which the container's silence is made.
func (t *Subsystem) onThread(step record.Step, fn func() error) error {
	if p := t.traced(step.Process); p != nil {
		return p.Do(fn)
	}
	return fn()
}

// untraced reports whether the subsystem's Checkpoint asks a tracer for nothing, as
// a rule.
func (t *Subsystem) untraced() bool {
	u, ok := t.Subsystem.(kernel.Untraced)
	return ok && u.Untraced()
}

// keeps reports whether the subsystem does nothing with a record but to keep it
// for a later stage.
func (t *Subsystem) keeps() bool {
	k, ok := t.Subsystem.(kernel.Keeper)
	return ok && k.Keeps()
}

// Preflight asks the subsystem if it has something to say.
func (t *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	if p, ok := t.Subsystem.(control.Preflighter); ok {
		return p.Preflight(ctx)
	}
	return nil, nil
}

// Quiet asks the subsystem if it wants to.
func (t *Subsystem) Quiet(ctx context.Context) ([]record.Finding, error) {
	if q, ok := t.Subsystem.(control.Quieter); ok {
		return q.Quiet(ctx)
	}
	return nil, nil
}

// Aside asks the subsystem; one that says nothing has its turn.
func (t *Subsystem) Aside() bool {
	a, ok := t.Subsystem.(control.AsideExporter)
	return ok && a.Aside()
}

// SharedOnly asks the subsystem; one that says nothing may have something of every
// process.
func (t *Subsystem) SharedOnly() bool {
	s, ok := t.Subsystem.(control.SharedSubsystem)
	return ok && s.SharedOnly()
}

// Concurrent asks the subsystem; one that says nothing wants its records one
// by one.
func (t *Subsystem) Concurrent(h record.Header) bool {
	c, ok := t.Subsystem.(control.ConcurrentReceiver)
	return ok && c.Concurrent(h)
}
