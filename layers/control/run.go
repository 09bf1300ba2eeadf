// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// run lets the copy go. Its context is not the caller's: the copy is the
// container now, and a cancel comes too late.
func (m *Importer) run(ctx context.Context) (Result, error) {
	ctx, stop := m.start(ctx)
	defer stop()
	var ran atomic.Bool
	err := m.each(ctx, m.held, func(ctx context.Context, id record.ProcessID) error {
		err := m.call(ctx, Place{Call: "restart", Process: id}, func(ctx context.Context) error {
			// Set before the answer: a failed or stuck call may have let it go.
			ran.Store(true)
			return m.opts.Container.Process(id).Restart(ctx)
		})
		return err
	})
	if err != nil {
		return m.undo(ctx, err, ran.Load())
	}
	if err := m.to(StateRunning); err != nil {
		return m.conclude(ctx, StateFailed, &Error{Side: m.side, At: StateCommitted, Cause: err, Ran: true})
	}
	m.update(func(r *Result) { r.Downtime = time.Since(m.arrived) })
	return m.afterwards(ctx)
}

// afterwards tells of the run and receives what was left behind. Whatever
// fails, the copy runs on.
func (m *Importer) afterwards(ctx context.Context) (Result, error) {
	var told error
	if m.opts.Running != nil {
		told = m.call(ctx, Place{Call: "running"}, m.opts.Running)
	}
	if m.more {
		if err := m.to(StateFilling); err != nil {
			return m.conclude(ctx, StateHeld, &Error{Side: m.side, At: StateRunning, Cause: err, Ran: true})
		}
		err := m.receiveAll(ctx)
		if err != nil {
			err = m.fill(ctx, err)
		}
		if err != nil {
			err = fmt.Errorf("the copy runs, but waits where it needs what was left behind: %w", errors.Join(err, told))
			return m.conclude(ctx, StateHeld, &Error{Side: m.side, At: StateFilling, Cause: err, Ran: true, Undo: m.close()})
		}
	}
	closed := m.close()
	m.update(func(r *Result) { r.Warnings = append(r.Warnings, lines(told, closed)...) })
	return m.conclude(ctx, StateDone, nil)
}

// fill fetches what has stopped coming.
func (m *Importer) fill(ctx context.Context, cause error) error {
	if m.opts.Fill == nil {
		return cause
	}
	m.update(func(r *Result) { r.Warnings = append(r.Warnings, cause.Error()) })
	m.quit()
	err := m.call(context.WithoutCancel(ctx), Place{Call: "fill"}, m.opts.Fill)
	if err != nil {
		return errors.Join(cause, err)
	}
	return nil
}

func lines(errs ...error) (s []string) {
	for _, err := range errs {
		if err != nil {
			s = append(s, err.Error())
		}
	}
	return s
}

// undo ends the frame's processes, the last first, and releases the container,
// whatever the context says.
func (m *Importer) undo(ctx context.Context, cause error, ran bool) (Result, error) {
	at := m.current()
	if err := m.to(StateUndoing); err != nil {
		cause = errors.Join(cause, err)
	}
	undone := errors.Join(m.discard(ctx), m.failing(ctx, cause), m.close())
	end := StateCleaned
	if undone != nil {
		end = StateFailed
	}
	return m.conclude(ctx, end, &Error{Side: m.side, At: at, Cause: cause, Undo: undone, Ran: ran})
}

func (m *Importer) discard(ctx context.Context) error {
	ids := slices.Clone(m.held)
	slices.Reverse(ids)
	var errs []error
	for _, id := range ids {
		// A frame dies with the engine (EXITKILL) where a call is still at work.
		if m.untouchable(id) {
			errs = append(errs, fmt.Errorf("process %d was not ended: a call may still be at work in it; it ends with the engine process", id))
			continue
		}
		errs = append(errs, m.lastCall(ctx, Place{Call: "cleanup", Process: id}, m.opts.Container.Process(id).Cleanup))
	}
	if m.touched {
		errs = append(errs, m.lastCall(ctx, Place{Call: "release"}, m.opts.Container.Release))
	}
	return errors.Join(errs...)
}

func (m *Importer) close() error {
	if m.closed {
		return nil
	}
	m.closed = true
	return m.lastCall(context.Background(), Place{Call: "close medium"}, func(context.Context) error { return m.opts.Medium.Close() })
}
