// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// What refuses a running container must be seen this often, in looks that are
// this far apart: while one is made processes come and go, and the end of a
// connection whose program has just ended looks like one of a stranger's.
const (
	preflightLooks = 3
	preflightPause = 20 * time.Millisecond
)

// Preflight asks one subsystem, again where it refuses, and returns what it
// warns of and what it refuses each time.
func Preflight(ctx context.Context, p Preflighter) ([]record.Finding, error) {
	found, err := p.Preflight(ctx)
	for n := 1; n < preflightLooks && err == nil && slices.ContainsFunc(found, refuses); n++ {
		select {
		case <-time.After(preflightPause):
		case <-ctx.Done():
			return found, context.Cause(ctx)
		}
		var again []record.Finding
		again, err = p.Preflight(ctx)
		found = slices.DeleteFunc(found, func(f record.Finding) bool {
			return refuses(f) && !slices.ContainsFunc(again, func(o record.Finding) bool { return sameFinding(f, o) })
		})
	}
	return found, err
}

func refuses(f record.Finding) bool { return !f.Warning }

// sameFinding: the same thing, whatever is said about it by now.
func sameFinding(a, b record.Finding) bool {
	return refuses(a) == refuses(b) && a.Pid == b.Pid && a.TID == b.TID && a.FD == b.FD && a.Subsystem == b.Subsystem && a.What == b.What
}

// answer is what the pre-flight of one subsystem found.
type answer struct {
	found []record.Finding
	err   error
}

// preflight asks everyone before anything is touched, side by side: nobody changes
// anything.
func (x *Exporter) preflight(ctx context.Context) error {
	if err := errors.Join(x.to(StatePreflight), x.check()); err != nil {
		return err
	}
	var refused []record.Finding
	var errs []error
	for _, a := range x.ask(ctx) {
		errs = append(errs, a.err)
		for _, f := range a.found {
			if f.Warning {
				x.update(func(r *Result) { r.Warnings = append(r.Warnings, f.String()) })
				continue
			}
			refused = append(refused, f)
		}
	}
	if len(refused) > 0 {
		errs = append([]error{&PreflightError{Findings: refused}}, errs...)
	}
	return errors.Join(errs...)
}

// ask returns the answers in the order of the subsystems.
func (x *Exporter) ask(ctx context.Context) []answer {
	answers := make([]answer, len(x.opts.Subsystems))
	var wg sync.WaitGroup
	room := make(chan struct{}, max(x.tune.Workers, 1))
	for i, sub := range x.opts.Subsystems {
		p, ok := sub.(Preflighter)
		if !ok {
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			got := make(chan []record.Finding, 1) // what comes after its time is dropped
			err := x.call(ctx, Place{Call: "preflight", Subsystem: sub.Name()}, func(ctx context.Context) error {
				found, err := Preflight(ctx, p)
				got <- found
				return err
			})
			answers[i].err = err
			select {
			case answers[i].found = <-got:
			default:
			}
		})
	}
	wg.Wait()
	return answers
}
