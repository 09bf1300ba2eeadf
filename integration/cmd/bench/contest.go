// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/victim"
)

// entrant is one of those that are measured in turn.
type entrant struct {
	cycles
	driver driver.Driver
	hooks  hooks
	// around prepares a cycle and returns what undoes it.
	around func() (undo func() error, err error)

	failed int
}

// maxFailures of an entrant end its part in a contest.
const maxFailures = 3

// manyThreads are so many that CRIU takes half a minute and more for them.
const manyThreads = 10000

// rounds is how often a program is measured, and whether a round before that
// warms up: large ones less often, since they take longer and scatter less.
func (b *bench) rounds(c victim.Config) (runs, warmUp int) {
	switch {
	case c.Threads >= manyThreads:
		return 1, 0
	case c.Megabytes >= 2048:
		return min(b.runs, 3), 1
	case c.Megabytes >= 512:
		return min(b.runs, 5), 1
	}
	return b.runs, 1
}

// contest measures the entrants in turn, so that whatever disturbs the machine
// disturbs all of them. The first round only warms up. What was interrupted is
// no measurement and no failure.
func (b *bench) contest(ctx context.Context, s *report.Section, conf victim.Config, entrants ...*entrant) {
	runs, warmUp := b.rounds(conf)
	for round := range runs + warmUp {
		for _, e := range entrants {
			if e.failed >= maxFailures || ctx.Err() != nil {
				continue
			}
			err := b.turn(ctx, e, conf, round >= warmUp)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				e.failed++
				s.Fail(fmt.Sprintf("%s, %d MB, round %d", e.name, conf.Megabytes, round), err)
			}
		}
	}
}

// turnTimeout bounds one measurement: what hangs is a failure like others.
const turnTimeout = 3 * time.Minute

func (b *bench) turn(ctx context.Context, e *entrant, conf victim.Config, count bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	if e.around != nil {
		undo, err := e.around()
		if err != nil {
			return err
		}
		defer func() {
			if undoErr := undo(); err == nil {
				err = undoErr
			}
		}()
	}
	return b.cycle(ctx, e.driver, conf, &e.cycles, count, e.hooks)
}

// entrants are mig and, where it can be had, the peer.
func (b *bench) entrants() (mig, peer *entrant, all []*entrant) {
	mig = &entrant{driver: b.mig, cycles: cycles{name: b.mig.Name()}}
	peer = &entrant{cycles: cycles{name: "runc + CRIU"}}
	if b.peer == nil {
		return mig, peer, []*entrant{mig}
	}
	peer.driver = b.peer
	return mig, peer, []*entrant{mig, peer}
}

// rows are the lines of one entrant.
func rows(s *report.Section, c *cycles) {
	s.Row(c.name+": checkpoint, runs on", report.Milliseconds, c.leave)
	s.Row(c.name+": silence of that", report.Milliseconds, c.quiet)
	s.Row(c.name+": checkpoint, exits", report.Milliseconds, c.checkpoint)
	s.Row(c.name+": restore", report.Milliseconds, c.restore)
	s.Row(c.name+": checkpoint + restore", report.Milliseconds, c.total())
	s.Row(c.name+": silence of both", report.Milliseconds, c.silence)
}
