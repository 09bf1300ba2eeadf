// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// call makes one call that leaves the event: a panic becomes an error, a call
// that ignores the end of its context is left behind after the grace, and the
// error names the place. A call that succeeds although its context has ended
// meanwhile has succeeded: what it did has to be undone. In a shelter it is made
// on the spot, and the shelter is what is left behind.
func (e *Event) call(ctx context.Context, p Place, fn func(context.Context) error) error {
	if err := context.Cause(ctx); err != nil {
		return &PlaceError{Place: p, Err: err}
	}
	s := e.sheltering(ctx)
	leave := e.enter(p, s)
	defer leave()
	if e.tune.Called != nil {
		began := time.Now()
		defer func() { e.tune.Called(p, began, time.Now()) }()
	}
	if s != nil {
		return e.answered(ctx, p, guard(func() error { return fn(ctx) }))
	}
	done := make(chan error, 1)
	go func() { done <- guard(func() error { return fn(ctx) }) }()

	select {
	case err := <-done:
		return e.answered(ctx, p, err)
	case <-ctx.Done():
	}
	t := time.NewTimer(e.tune.Grace)
	defer t.Stop()
	select {
	case err := <-done:
		return e.answered(ctx, p, err)
	case <-t.C:
		s := &StuckError{Place: p, Grace: e.tune.Grace, Cause: context.Cause(ctx)}
		e.abandon(s)
		return &PlaceError{Place: p, Err: s}
	}
}

// lastCall is a call of undoing or of ending: it is made whatever has happened
// to the event's context, and each has a time of its own, so that one that hangs
// does not take it from the others.
func (e *Event) lastCall(ctx context.Context, p Place, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.tune.Undo)
	defer cancel()
	return e.call(ctx, p, fn)
}

// answered wraps a call's error. Where it merely says that its context has
// ended, the reason for that end is worth more.
func (e *Event) answered(ctx context.Context, p Place, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		err = cause
	}
	return &PlaceError{Place: p, Err: err}
}

// enter notes a call for the status and the watchdog.
func (e *Event) enter(p Place, s *shelter) (leave func()) {
	e.mu.Lock()
	id := e.nextID
	e.nextID++
	e.active[id] = activeCall{p, s}
	e.mu.Unlock()
	return func() {
		e.mu.Lock()
		delete(e.active, id)
		e.mu.Unlock()
	}
}

func (e *Event) abandon(s *StuckError) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.abandoned = append(e.abandoned, s)
	if id, hands := s.Place.touchesTasks(); hands {
		e.stuck[id] = true
	}
}

// untouchable reports whether a call that never returned may still be at work
// in the process.
func (e *Event) untouchable(id record.ProcessID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stuck[id] || e.stuck[record.Shared]
}

// guard turns a panic into an error with its stack. runtime.Goexit in fn is
// reported likewise, so that no caller waits for ever.
func guard(fn func() error) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		if v == nil {
			v = "the goroutine was ended"
		}
		err = &PanicError{Value: v, Stack: debug.Stack()}
	}()
	err = fn()
	returned = true
	return err
}

// each calls fn for every process, at most Tuning.Workers at a time. The first
// error ends the others' context and is returned.
func (e *Event) each(ctx context.Context, ids []record.ProcessID, fn func(context.Context, record.ProcessID) error) error {
	if len(ids) < 2 || isResident(ctx) {
		for _, id := range ids {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := fn(ctx, id); err != nil {
				return err
			}
		}
		return context.Cause(ctx)
	}
	if e.tune.Workers > 1 {
		ctx = e.exposed(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var once sync.Once
	var first error
	e.pool(ids, func(id record.ProcessID) {
		if context.Cause(ctx) != nil {
			return
		}
		if err := fn(ctx, id); err != nil {
			once.Do(func() { first = err; cancel(err) })
		}
	})
	if first == nil {
		return context.Cause(ctx)
	}
	return first
}

// every calls fn for every process whatever the others answer, and joins the
// errors in the order of the processes.
func (e *Event) every(ids []record.ProcessID, fn func(record.ProcessID) error) error {
	errs := make([]error, len(ids))
	at := make(map[record.ProcessID]int, len(ids))
	for i, id := range ids {
		at[id] = i
	}
	e.pool(ids, func(id record.ProcessID) { errs[at[id]] = fn(id) })
	return errors.Join(errs...)
}

// pool runs fn for every process on a bounded number of workers, starting in
// the order of the list. A single worker is the caller itself.
func (e *Event) pool(ids []record.ProcessID, fn func(record.ProcessID)) {
	n := min(e.tune.Workers, len(ids))
	if n <= 1 {
		for _, id := range ids {
			fn(id)
		}
		return
	}
	next := make(chan record.ProcessID)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for id := range next {
				fn(id)
			}
		})
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	wg.Wait()
}
