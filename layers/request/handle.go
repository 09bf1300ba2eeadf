// SPDX-License-Identifier: Apache-2.0

package request

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/request/job"
)

// Handle is one request under way, or ended.
type Handle struct {
	m     *Manager
	stop  context.CancelCauseFunc
	dirty chan struct{}
	done  chan struct{}

	run Running // set by begin, before anybody has the handle

	mu sync.Mutex
	// Below: guarded by mu; ID and Container of the status never change.
	status Status
	why    error // of the cancellation
	// doubting is called when the status begins to say a doubt; nil: nobody wants
	// to know.
	doubting func()
	err      error // the outcome, set before done is closed
}

// ID of the request.
func (h *Handle) ID() string { return h.status.ID }

// Token of the request.
func (h *Handle) Token() string { return h.status.Token }

// Status is a copy of the current status.
func (h *Handle) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status
}

// Cancel asks the request to end. Before its decision it is undone; afterwards
// it goes to its end. It does not wait.
func (h *Handle) Cancel() { h.cancel(context.Canceled) }

func (h *Handle) cancel(why error) {
	h.mu.Lock()
	if h.why == nil && !h.status.Phase.Final() {
		h.why = why
		h.status.Phase = Canceling
	}
	h.mu.Unlock()
	h.touch()
	h.stop(why)
}

// Release gives up what is held for an engine that did not end well (job.Keeper).
// Call it when nothing is left that it guards.
func (h *Handle) Release() {
	if r, ok := h.run.(interface{ Release() }); ok {
		r.Release()
	}
}

// Done is closed when the request has ended.
func (h *Handle) Done() <-chan struct{} { return h.done }

// Wait returns the outcome: nil, or the engine's whole error. The end of ctx
// ends only the waiting.
func (h *Handle) Wait(ctx context.Context) error {
	select {
	case <-h.done:
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// begin follows a job until its end.
func (h *Handle) begin(run Running) {
	h.run = run
	now := time.Now()
	h.mu.Lock()
	h.status.Started, h.status.Engine = &now, run.Pid()
	if h.status.Phase == Pending {
		h.status.Phase = Active
	}
	h.mu.Unlock()
	h.touch()
	written := make(chan struct{})
	quit := make(chan struct{})
	go func() {
		defer close(written)
		h.write(quit)
	}()
	go func() {
		for p := range run.Progress() {
			h.take(p)
		}
		last, err := run.Wait()
		close(quit)
		<-written
		h.finish(last, err)
	}()
	go h.heed()
}

// Doubt notes in the status of an ended request that its container stays frozen,
// with nil that it does not any more.
func (h *Handle) Doubt(d *Doubt) {
	<-h.done
	h.mu.Lock()
	h.status.Doubt, h.status.Updated = d, time.Now()
	st := h.status
	h.mu.Unlock()
	if err := h.m.store.write(&st); err != nil {
		h.m.opts.Warn(err)
	}
}

// OnDoubt has f called once when the engine begins to doubt what became of the copy,
// at once if it does already. f does not wait for the request.
func (h *Handle) OnDoubt(f func()) {
	h.mu.Lock()
	h.doubting = f
	h.mu.Unlock()
	h.tellDoubt()
}

func (h *Handle) tellDoubt() {
	h.mu.Lock()
	f := h.doubting
	if h.status.Doubt == nil {
		f = nil
	}
	if f != nil {
		h.doubting = nil
	}
	h.mu.Unlock()
	if f != nil {
		f()
	}
}

// take notes a progress and the rate since the one before.
func (h *Handle) take(p job.Progress) {
	h.mu.Lock()
	now := time.Now()
	if d := now.Sub(h.status.Updated); p.Rate == 0 && d > 0 && p.Bytes > h.status.Progress.Bytes {
		p.Rate = uint64(float64(p.Bytes-h.status.Progress.Bytes) / d.Seconds())
	}
	h.status.Doubt, p.Doubt = p.Doubt, nil
	h.status.Progress, h.status.Updated = p, now
	h.mu.Unlock()
	h.tellDoubt()
	h.touch()
}

func (h *Handle) touch() {
	select {
	case h.dirty <- struct{}{}:
	default:
	}
}

// write keeps the file up to date, not more often than Options.Every.
func (h *Handle) write(quit <-chan struct{}) {
	for {
		select {
		case <-quit:
			return
		case <-h.dirty:
		}
		st := h.Status()
		if err := h.m.store.write(&st); err != nil {
			h.m.opts.Warn(err)
		}
		t := time.NewTimer(h.m.opts.Every)
		select {
		case <-quit:
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// finish writes the last status and ends the waiting.
func (h *Handle) finish(last job.Progress, err error) {
	now := time.Now()
	h.mu.Lock()
	plain := h.why == context.Canceled //nolint:errorlint // by its identity: Cancel was called
	if err != nil && h.why != nil && !plain {
		err = fmt.Errorf("%w: %w", h.why, err)
	}
	h.err = err
	s := &h.status
	if last.State != "" || last.Bytes > 0 {
		last.Rate = s.Progress.Rate
		s.Doubt, last.Doubt = last.Doubt, nil
		s.Progress = last
	}
	s.Ended, s.Updated, s.Phase = &now, now, Succeeded
	if err != nil {
		s.Phase, s.Failure = Failed, failureOf(err)
		if plain && errors.Is(err, context.Canceled) {
			s.Phase = Canceled
		}
	}
	st := *s
	h.mu.Unlock()
	if err := h.m.store.write(&st); err != nil {
		h.m.opts.Warn(err)
	}
	h.m.store.forgetAbort(st.ID)
	h.stop(nil)
	h.m.leave(h)
	close(h.done)
	h.m.prune() // reads every status: nobody waits for it
}

// failureOf packs an outcome, also that of an engine that could not.
func failureOf(err error) *job.Failure {
	f := job.FailureOf(err)
	var died *EngineDiedError
	if errors.As(err, &died) {
		f.Kind = job.Died
	}
	return f
}
