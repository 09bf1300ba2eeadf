// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"slices"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// shelter is a run of calls that are made on the spot, one after the other, while
// the event waits for the run as a whole. What a call promises holds for each of
// them; what it costs, a goroutine of its own and two switches between threads,
// is paid once for all.
type shelter struct{ event *Event }

type shelterKey struct{}

// sheltering is the shelter in which a context's calls are made, nil if each has
// a goroutine of its own.
func (e *Event) sheltering(ctx context.Context) *shelter {
	if s, _ := ctx.Value(shelterKey{}).(*shelter); s != nil && s.event == e {
		return s
	}
	return nil
}

// exposed is a context whose calls have goroutines of their own again: for those
// that are made side by side, of which one may have to be left behind.
func (e *Event) exposed(ctx context.Context) context.Context {
	if e.sheltering(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, shelterKey{}, (*shelter)(nil))
}

// sheltered runs fn, in which calls are made one after the other, and leaves it
// behind as a single call would be: when its context has ended and the grace has
// passed. The calls that are under way then are the ones that are stuck. Whatever
// fn does between its calls has to end with its context, and must not be needed
// by who goes on without it.
func (e *Event) sheltered(ctx context.Context, fn func(context.Context) error) error {
	s := &shelter{event: e}
	done := make(chan error, 1)
	go func() {
		done <- guard(func() error { return fn(context.WithValue(ctx, shelterKey{}, s)) })
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	for {
		t := time.NewTimer(e.tune.Grace)
		select {
		case err := <-done:
			t.Stop()
			return err
		case <-t.C:
		}
		if err := e.leaveBehind(ctx, s); err != nil {
			return err
		}
	}
}

// leaveBehind gives up the calls that are under way in a shelter. nil: there is
// none.
func (e *Event) leaveBehind(ctx context.Context, s *shelter) error {
	e.mu.Lock()
	var ids []uint64
	for id, a := range e.active {
		if a.shelter == s {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	places := make([]Place, len(ids))
	for i, id := range ids {
		places[i] = e.active[id].Place
	}
	e.mu.Unlock()
	var first error
	for _, p := range places {
		stuck := &StuckError{Place: p, Grace: e.tune.Grace, Cause: context.Cause(ctx)}
		e.abandon(stuck)
		if first == nil {
			first = &PlaceError{Place: p, Err: stuck}
		}
	}
	return first
}

// resident runs a part of a sheltered run where the steps of the processes are
// made, if that is one place: see Tuning.Reside. In it they are made one after
// the other.
func (e *Event) resident(ctx context.Context, ids []record.ProcessID, fn func(context.Context) error) error {
	if e.tune.Reside == nil {
		return fn(ctx)
	}
	place := e.tune.Reside(ids)
	if place == nil {
		return fn(ctx)
	}
	return place(func() error { return fn(context.WithValue(ctx, residentKey{}, true)) })
}

type residentKey struct{}

func isResident(ctx context.Context) bool { return ctx.Value(residentKey{}) != nil }
