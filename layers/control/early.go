// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// early makes the pre-copy rounds of the strategy while the tasks run. The
// processes are listed anew for each round: one that ends or appears is the
// subsystems' to notice, and Hold is the look that counts.
func (x *Exporter) early(ctx context.Context) error {
	s := x.opts.Strategy
	if s.Rounds == 0 && s.LeaveBehind == LeaveAlways && x.opts.Switch != nil {
		return x.lean(ctx)
	}
	if s.Rounds == 0 {
		return nil
	}
	if err := x.to(StateEarly); err != nil {
		return err
	}
	slowed, err := x.rounds(ctx)
	if slowed == 0 {
		return err
	}
	// A task that waits for its share of a processor would not stop soon.
	return errors.Join(err, x.lastCall(ctx, Place{Call: "slow"}, func(ctx context.Context) error { return x.opts.Slow(ctx, 0) }))
}

// rounds makes the rounds and returns how often the workload was slowed down.
func (x *Exporter) rounds(ctx context.Context) (slowed int, err error) {
	s := x.opts.Strategy
	begun := time.Now()
	var before uint64
	last := s.Rounds == 1
	for n := 0; ; n++ {
		r, err := x.earlyRound(ctx, n, last)
		if err != nil || last {
			return slowed, err
		}
		d := s.Decide(Outlook{
			Made: n + 1, Sent: r.Bytes, Took: r.Took, Remaining: r.Remaining, Before: before, Elapsed: time.Since(begun), Slowed: slowed,
		})
		switch d.Next {
		case NextSlower:
			slowed++ // also if it fails half-way
			if err := x.call(ctx, Place{Call: "slow"}, func(ctx context.Context) error { return x.opts.Slow(ctx, slowed) }); err != nil {
				return slowed, err
			}
		case NextGiveUp:
			return slowed, fmt.Errorf("after %d rounds %d bytes remain, more than the downtime of %s allows: the container writes faster than its state travels (allow more downtime, or another strategy)",
				n+1, r.Remaining, s.Downtime)
		}
		last = d.Next == NextLast
		x.leave = x.leave || d.Leave
		before = r.Remaining
	}
}

// lean makes one round of a strategy that has none: files, for example, are not
// left behind, and their first pass need not be made when the container stands
// still. It does not count as a round.
func (x *Exporter) lean(ctx context.Context) error {
	if _, ok := x.opts.Container.(Lister); !ok {
		return nil
	}
	if err := x.to(StateEarly); err != nil {
		return err
	}
	_, err := x.earlySteps(ctx, record.Step{Stage: record.StageEarly, Last: true, Lean: true})
	return err
}

// earlyRound is one step of every subsystem for what is shared and for every
// process.
func (x *Exporter) earlyRound(ctx context.Context, n int, last bool) (Round, error) {
	r, err := x.earlySteps(ctx, record.Step{Stage: record.StageEarly, Round: n, Last: last})
	if err != nil {
		return Round{}, err
	}
	x.mu.Lock()
	x.round = n + 1
	x.result.Rounds = append(x.result.Rounds, r)
	x.mu.Unlock()
	return r, nil
}

func (x *Exporter) earlySteps(ctx context.Context, step record.Step) (Round, error) {
	x.touched = true
	ids, err := list(ctx, x.Event, "list", x.opts.Container.(Lister).List)
	if err != nil {
		return Round{}, err
	}
	begun, sent := time.Now(), x.snapshot().Bytes
	var remaining counter
	for _, sub := range x.opts.Subsystems {
		fn := x.exporter(sub, x.opts.Medium.PushData)
		one := func(ctx context.Context, id record.ProcessID) error {
			st := step
			st.Process = id
			pr, err := x.step(ctx, sub, st, fn)
			remaining.add(pr.Remaining)
			return err
		}
		if err := one(ctx, record.Shared); err != nil {
			return Round{}, err
		}
		if sharedOnly(sub) {
			continue
		}
		if err := x.each(ctx, ids, one); err != nil {
			return Round{}, err
		}
	}
	// What the destination has still to take in would be in the way of what comes
	// when the container is stopped, and no bandwidth is measured without it.
	if x.opts.Switch != nil {
		if err := x.call(ctx, Place{Call: "flush"}, x.opts.Medium.Flush); err != nil {
			return Round{}, err
		}
	}
	x.ahead = true
	return Round{Bytes: x.snapshot().Bytes - sent, Remaining: remaining.sum(), Took: time.Since(begun)}, nil
}
