// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// maxHolds bounds how often a container is listed until no new process
// appears. Since Hold stops it as a whole, a second look is normally the last.
const maxHolds = 64

// hold stops the container and takes hold of every process, until a look shows
// no new one. A process that ends meanwhile is no failure.
func (x *Exporter) hold(ctx context.Context) error {
	x.stopped = time.Now()
	for range maxHolds {
		if err := x.to(StateHolding); err != nil {
			return err
		}
		fresh, err := x.look(ctx)
		if err != nil {
			return err
		}
		if len(fresh) == 0 {
			return x.settle()
		}
		if err := x.to(StateSetup); err != nil {
			return err
		}
		if err := x.take(ctx, fresh); err != nil {
			return err
		}
	}
	return fmt.Errorf("the container still shows new processes after %d attempts to hold it", maxHolds)
}

// look holds the container and returns the processes that are not held yet.
func (x *Exporter) look(ctx context.Context) ([]record.ProcessID, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	x.touched = true
	ids, err := list(ctx, x.Event, "hold", x.opts.Container.Hold)
	if err != nil {
		return nil, err
	}
	x.listed = ids
	return without(ids, x.held), nil
}

// settle ends the hold. Those that ended meanwhile are no longer listed.
func (x *Exporter) settle() error {
	if len(x.listed) == 0 {
		return errors.New("the container has no process any more")
	}
	x.update(func(r *Result) { r.Processes = len(x.listed) })
	return nil
}

// take sets the processes up side by side. What it took is noted even if one
// of them fails.
func (x *Exporter) take(ctx context.Context, ids []record.ProcessID) error {
	held, err := takeHold(ctx, x.Event, x.opts.Container, ids)
	x.held = append(x.held, held...)
	return err
}

// takeHold calls Setup of every process and returns those that it holds now, in
// their order, also with an error.
func takeHold(ctx context.Context, e *Event, c Container, ids []record.ProcessID) ([]record.ProcessID, error) {
	var mu sync.Mutex
	holds := map[record.ProcessID]bool{}
	err := e.each(ctx, ids, func(ctx context.Context, id record.ProcessID) error {
		err := e.call(ctx, Place{Call: "setup", Process: id}, c.Process(id).Setup)
		if errors.Is(err, ErrGone) {
			return nil
		}
		if err == nil {
			e.dog.touch()
			mu.Lock()
			holds[id] = true
			mu.Unlock()
		}
		return err
	})
	mu.Lock()
	defer mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ids), func(id record.ProcessID) bool { return !holds[id] }), err
}

// list asks for process ids and refuses what cannot be one.
func list(ctx context.Context, e *Event, verb string, ask func(context.Context) ([]record.ProcessID, error)) ([]record.ProcessID, error) {
	var ids []record.ProcessID
	err := e.call(ctx, Place{Call: verb}, func(ctx context.Context) error {
		got, err := ask(ctx)
		if err == nil {
			ids = slices.Clone(got)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	seen := map[record.ProcessID]bool{}
	for _, id := range ids {
		if id == record.Shared || seen[id] {
			return nil, &DefectError{What: fmt.Sprintf("%s names process %d twice, or names none", verb, id)}
		}
		seen[id] = true
	}
	return ids, nil
}

func without(ids, known []record.ProcessID) []record.ProcessID {
	return slices.DeleteFunc(slices.Clone(ids), func(id record.ProcessID) bool { return slices.Contains(known, id) })
}
