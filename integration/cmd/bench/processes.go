// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/stats"
	"github.com/io-mig/mig/integration/bench/victim"
)

// Goals of programs of several processes: how much longer nine may be held than
// one, and what part of the time nine should take that share their data.
const (
	goalFreezeGrowth = 1.3
	goalShared       = 1 / 1.5
)

// manyProcesses are so many that one container of them is alone on the machine,
// and restored once.
const manyProcesses = 64

// tribe is a program of several processes, and what was measured of it.
type tribe struct {
	name string
	conf victim.Config

	container *driver.Container
	// held is how long a checkpoint that leaves the program running stops the
	// processes, quiet the longest that any of them saw of it, leave the whole
	// request. restore is that of the image with which the program has ended.
	held, quiet, leave, restore stats.Series
}

func newTribe(processes, megabytes int, shared bool) *tribe {
	t := &tribe{name: fmt.Sprintf("%d processes", processes), conf: victim.Config{Megabytes: megabytes, Processes: processes, Shared: shared}}
	switch {
	case processes == 1:
		t.name = "1 process"
	case shared:
		t.name += ", one region shared"
	}
	t.conf.Nap = processes >= manyProcesses
	return t
}

// processes is how long programs of one process and of many are stopped by a
// checkpoint.
func processes(ctx context.Context, b *bench) error {
	for _, size := range []int{1, 16} {
		s := b.report.Add(fmt.Sprintf("Freeze time of several processes, %d MB each or shared", size),
			"Held: as mig says. Checkpoints in turn, of programs that run beside each other and run on; at the end each is restored, and every process compares all of its memory.")
		one, nine, shared := newTribe(1, size, false), newTribe(9, size, false), newTribe(9, size, true)
		b.tribes(ctx, s, b.runs, one, nine, shared)
		if size == 1 {
			s.AtMost("held, nine processes of one", "", nine.held.Over(one.held), goalFreezeGrowth)
		} else {
			s.AtMost("checkpoint, nine processes that share of nine that do not", "", shared.leave.Over(nine.leave), goalShared)
		}
		s.AtMost("held, nine processes that share of nine that do not", "", shared.held.Over(nine.held), goalShared)
		if err := b.flush(); err != nil {
			return err
		}
	}
	s := b.report.Add("Freeze time of many processes, 1 MB each", "One program at a time.")
	for _, n := range []int{manyProcesses, 512} {
		b.tribes(ctx, s, min(b.runs, 5), newTribe(n, 1, false))
	}
	return b.flush()
}

// tribes measures programs in turn. The first round only warms up.
func (b *bench) tribes(ctx context.Context, s *report.Section, runs int, all ...*tribe) {
	for _, t := range all {
		if err := b.raise(ctx, t); err != nil {
			s.Fail(t.name, err)
			continue
		}
		defer func() { s.Fail(t.name, b.mig.Remove(context.WithoutCancel(ctx), t.container)) }()
	}
	for round := range runs + 1 {
		for _, t := range all {
			if t.container == nil || ctx.Err() != nil {
				continue
			}
			s.Fail(fmt.Sprintf("%s, round %d", t.name, round), b.hold(ctx, t, round > 0))
		}
	}
	for _, t := range all {
		if t.container != nil && ctx.Err() == nil {
			s.Fail(t.name+", restore", b.again(ctx, t))
		}
		s.Row(t.name+": held", report.Milliseconds, t.held)
		s.Row(t.name+": silence", report.Milliseconds, t.quiet)
		s.Row(t.name+": checkpoint, runs on", report.Milliseconds, t.leave)
		s.Row(t.name+": restore", report.Milliseconds, t.restore)
	}
}

// raise starts a program.
func (b *bench) raise(ctx context.Context, t *tribe) error {
	c, err := b.container(t.conf)
	if err != nil {
		return err
	}
	if err := b.mig.Run(ctx, c); err != nil {
		return err
	}
	t.container = c
	_, err = victim.AttachAll(ctx, c.Pid, t.conf)
	return err
}

// hold is one checkpoint after which the program runs on.
func (b *bench) hold(ctx context.Context, t *tribe, count bool) error {
	image := b.image()
	defer os.RemoveAll(image)
	family, err := victim.AttachAll(ctx, t.container.Pid, t.conf)
	if err != nil {
		return err
	}
	if !t.conf.Nap {
		if err := family.Reset(ctx); err != nil {
			return err
		}
	}
	took, err := b.mig.Checkpoint(ctx, t.container, image, true)
	if err != nil || !count {
		return err
	}
	r, err := b.mig.LastRequest(t.container.ID, "checkpoint")
	if err != nil {
		return err
	}
	t.leave.Add(took)
	t.held.Add(r.Progress.Downtime)
	if t.conf.Nap {
		return nil
	}
	quiet, err := family.Silence(ctx)
	t.quiet.Add(quiet)
	return err
}

// again ends a program with a checkpoint and restores it.
func (b *bench) again(ctx context.Context, t *tribe) (err error) {
	image := b.image()
	defer os.RemoveAll(image)
	target, err := b.container(t.conf)
	if err != nil {
		return err
	}
	defer os.RemoveAll(target.Bundle)
	if _, err := b.mig.Checkpoint(ctx, t.container, image, false); err != nil {
		return err
	}
	restored, err := b.mig.Restore(ctx, target, image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.mig.Remove(context.WithoutCancel(ctx), target)) }()
	t.restore.Add(restored.Total())
	family, err := victim.AttachAll(ctx, target.Pid, t.conf)
	if err != nil {
		return err
	}
	return family.Prove(ctx)
}
