// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/victim"
)

// fixed is what a checkpoint and a restore cost when there is almost nothing to
// carry.
func fixed(ctx context.Context, b *bench) error {
	s := b.report.Add("Fixed cost: 1 MB",
		"mig: Checkpoint of the task service; a new shim process, Create and Start. Peer: runc checkpoint, runc restore --detach.")
	mig, peer, all := b.entrants()
	cold := &entrant{driver: peer.driver, cycles: cycles{name: "runc + CRIU, probing"}, around: func() (func() error, error) {
		return b.kdat.Put, b.kdat.Remove()
	}}
	if b.peer != nil && b.kdat.Ours() {
		all = append(all, cold)
	}
	b.contest(ctx, s, victim.Config{Megabytes: 1, Spin: true}, all...)
	for _, e := range all {
		rows(s, &e.cycles)
	}
	without := mig.checkpoint.Plus(mig.fill)
	s.Row("mig: of the restore, starting a shim", report.Milliseconds, mig.shim)
	s.Row("mig: of the restore, creating the container", report.Milliseconds, mig.create)
	s.Row("mig: of the restore, filling it", report.Milliseconds, mig.fill)
	s.Row("mig: checkpoint + filling", report.Milliseconds, without)
	engine := mig.engineCheckpoint.Plus(mig.engineRestore)
	s.Row("mig: request of the checkpoint, until decided", report.Milliseconds, mig.engineCheckpoint)
	s.Row("mig: request of the restore, until it runs", report.Milliseconds, mig.engineRestore)
	s.Row("mig: processes held in the checkpoint", report.Milliseconds, mig.downtime)
	for _, p := range []*entrant{peer, cold} {
		s.AtMost("checkpoint + restore, container created, of "+p.name, "", mig.total().Over(p.total()), 1.0/8)
		s.AtMost("checkpoint + restore, without its creation, as a client sees it, of "+p.name, "", without.Over(p.total()), 1.0/60)
		s.AtMost("checkpoint + restore, without its creation, until committed, of "+p.name, "", engine.Over(p.total()), 1.0/60)
	}
	b.breakdown(1, 0, &mig.cycles)
	return nil
}

// breakdown adds a section that lists the shares of mig's requests, the phases
// first.
func (b *bench) breakdown(megabytes, threads int, c *cycles) {
	if len(c.shares) == 0 {
		return
	}
	s := b.report.Add(title("Where the time of mig's requests goes", megabytes, threads),
		"Of the same runs: phases of the two requests, then the steps of each subsystem, of all workers together, which are parts of the phases.")
	for _, steps := range []bool{false, true} {
		for _, x := range c.shares {
			if strings.Contains(x.what, ": steps of ") == steps {
				s.Row(x.what, report.Milliseconds, x.values)
			}
		}
	}
}

// silences are what larger programs see.
func silences(ctx context.Context, b *bench) error {
	for _, size := range []int{64, 512} {
		s := b.report.Add(title("Silence seen by a spinning program", size, 0), "")
		mig, peer, all := b.entrants()
		b.contest(ctx, s, victim.Config{Megabytes: size, Spin: true}, all...)
		for _, e := range all {
			s.Row(e.name+": checkpoint, runs on", report.Milliseconds, e.quiet)
			s.Row(e.name+": checkpoint and restore", report.Milliseconds, e.silence)
		}
		ratio(s, mig, peer)
		if err := b.flush(); err != nil {
			return err
		}
	}
	return nil
}

// threads is a program with as many threads as large servers have, and one with
// as many as hardly any has.
func threads(ctx context.Context, b *bench) error {
	if err := b.threaded(ctx, 1000); err != nil {
		return err
	}
	return b.threaded(ctx, manyThreads)
}

// goalManyThreads is what checkpoint and restore should take of CRIU's time.
const goalManyThreads = 1.0 / 10

func (b *bench) threaded(ctx context.Context, count int) error {
	const size = 16
	s := b.report.Add(title("Threads", size, count), "After each restore every thread is woken and has to answer.")
	mig, peer, all := b.entrants()
	b.contest(ctx, s, victim.Config{Megabytes: size, Threads: count}, all...)
	for _, e := range all {
		rows(s, &e.cycles)
	}
	ratio(s, mig, peer)
	if count == manyThreads {
		s.AtMost("checkpoint + restore, of runc + CRIU", "", mig.total().Over(peer.total()), goalManyThreads)
	}
	b.breakdown(size, count, &mig.cycles)
	return b.flush()
}

// ratio adds the comparison with the peer, for which no goal was set.
func ratio(s *report.Section, mig, peer *entrant) {
	s.Row("ratio mig / peer: checkpoint + restore", "", mig.total().Over(peer.total()))
	s.Row("ratio mig / peer: silence of both", "", mig.silence.Over(peer.silence))
}
