// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/bench/stats"
	"github.com/io-mig/mig/integration/bench/victim"
)

// cycles are the measurements of one way to checkpoint and restore, in
// milliseconds.
type cycles struct {
	name string
	// leave: a checkpoint after which the container runs on; quiet: what the
	// program saw of it.
	leave, quiet stats.Series
	// checkpoint with the end of the container, and the restore of it. shim
	// and create are the parts of the restore that start a shim and make the
	// container, fill is the rest.
	checkpoint, restore, shim, create, fill stats.Series
	// silence is what the program saw of checkpoint, restore and what is between.
	silence stats.Series
	// engine: from the request to its commit, as mig reports it; downtime: how
	// long the checkpoint held the processes.
	engineCheckpoint, engineRestore, downtime stats.Series
	// shares of the time of both requests, in their order.
	shares []share
}

// share is a part of the requests, measured as often as they were.
type share struct {
	what   string
	values stats.Series
}

// spend adds a measurement to a share, which is new at its first.
func (c *cycles) spend(what string, values ...float64) {
	at := slices.IndexFunc(c.shares, func(s share) bool { return s.what == what })
	if at < 0 {
		at = len(c.shares)
		c.shares = append(c.shares, share{what: what})
	}
	c.shares[at].values = append(c.shares[at].values, values...)
}

// share returns the measurements of one.
func (c *cycles) share(what string) stats.Series {
	for _, s := range c.shares {
		if s.what == what {
			return s.values
		}
	}
	return nil
}

// total is checkpoint and restore.
func (c *cycles) total() stats.Series { return c.checkpoint.Plus(c.restore) }

// hooks are called on the running program, before its first checkpoint and
// after its restore. What they measure counts, or only warms up.
type hooks struct {
	before, after func(ctx context.Context, v *victim.Victim, count bool) error
}

// cycle runs a program, checkpoints it twice, restores it, has it prove its
// memory, and adds what was measured unless it is the run that warms up.
func (b *bench) cycle(ctx context.Context, d driver.Driver, conf victim.Config, into *cycles, count bool, h hooks) (err error) {
	var one cycles
	source, err := b.container(conf)
	if err != nil {
		return err
	}
	defer os.RemoveAll(source.Bundle)
	if err := d.Run(ctx, source); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Remove(context.WithoutCancel(ctx), source)) }()
	v, err := victim.Attach(ctx, source.Pid, conf)
	if err != nil {
		return err
	}
	if h.before != nil {
		if err := h.before(ctx, v, count); err != nil {
			return err
		}
	}
	if err := b.leaveRunning(ctx, d, source, v, &one); err != nil {
		return err
	}
	if err := b.exitAndRestore(ctx, d, source, v, &one, func(w *victim.Victim) error {
		if h.after == nil {
			return nil
		}
		return h.after(ctx, w, count)
	}); err != nil {
		return err
	}
	if count {
		into.add(&one)
	}
	return nil
}

func (b *bench) leaveRunning(ctx context.Context, d driver.Driver, c *driver.Container, v *victim.Victim, one *cycles) error {
	image := b.image()
	defer os.RemoveAll(image)
	if err := v.Reset(ctx); err != nil {
		return err
	}
	took, err := d.Checkpoint(ctx, c, image, true)
	if err != nil {
		return err
	}
	one.leave.Add(took)
	return one.hear(ctx, v, &one.quiet)
}

func (b *bench) exitAndRestore(ctx context.Context, d driver.Driver, source *driver.Container, v *victim.Victim, one *cycles, after func(*victim.Victim) error) (err error) {
	image := b.image()
	defer os.RemoveAll(image)
	target, err := b.container(v.Config)
	if err != nil {
		return err
	}
	defer os.RemoveAll(target.Bundle)
	if err := v.Reset(ctx); err != nil {
		return err
	}
	took, err := d.Checkpoint(ctx, source, image, false)
	if err != nil {
		return err
	}
	restored, err := d.Restore(ctx, target, image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Remove(context.WithoutCancel(ctx), target)) }()
	one.checkpoint.Add(took)
	one.restore.Add(restored.Total())
	one.shim.Add(restored.Shim)
	one.create.Add(restored.Create)
	one.fill.Add(restored.Fill)
	if err := b.engineTimes(d, source, target, one); err != nil {
		return err
	}
	w, err := victim.Attach(ctx, target.Pid, v.Config)
	if err != nil {
		return err
	}
	if err := one.hear(ctx, w, &one.silence); err != nil {
		return err
	}
	if err := errors.Join(w.Verify(ctx), w.Wake(ctx)); err != nil {
		return fmt.Errorf("after the restore: %w", err)
	}
	return after(w)
}

// hear asks the program for its longest silence, by CLOCK_REALTIME:
// CLOCK_MONOTONIC may be set back by a restore, as CRIU does with a time
// namespace, and then hides a part.
func (one *cycles) hear(ctx context.Context, v *victim.Victim, into *stats.Series) error {
	s, err := v.Silence(ctx)
	if err == nil {
		into.Add(s.Longest())
	}
	return err
}

// engineTimes reads what mig says of its two requests.
func (b *bench) engineTimes(d driver.Driver, source, target *driver.Container, one *cycles) error {
	if d != driver.Driver(b.mig) {
		return nil
	}
	saved, err := b.mig.LastRequest(source.ID, "checkpoint")
	if err != nil {
		return err
	}
	restored, err := b.mig.LastRequest(target.ID, "restore")
	if err != nil {
		return err
	}
	for _, x := range []struct {
		r    driver.Request
		into *stats.Series
	}{{saved, &one.engineCheckpoint}, {restored, &one.engineRestore}} {
		took, err := x.r.Committed()
		if err != nil {
			return err
		}
		x.into.Add(took)
		shares, err := x.r.Shares()
		if err != nil {
			return err
		}
		for _, s := range shares {
			one.spend(x.r.Kind+": "+s.What, float64(s.Took)/1e6)
		}
		for _, s := range x.r.Progress.Subsystems {
			one.spend(x.r.Kind+": steps of "+s.Name, float64(s.Took)/1e6)
		}
	}
	one.downtime.Add(saved.Progress.Downtime)
	return nil
}

func (c *cycles) add(one *cycles) {
	for _, x := range []struct{ all, one *stats.Series }{
		{&c.leave, &one.leave}, {&c.quiet, &one.quiet}, {&c.checkpoint, &one.checkpoint}, {&c.restore, &one.restore},
		{&c.shim, &one.shim}, {&c.create, &one.create}, {&c.fill, &one.fill}, {&c.silence, &one.silence},
		{&c.engineCheckpoint, &one.engineCheckpoint}, {&c.engineRestore, &one.engineRestore}, {&c.downtime, &one.downtime},
	} {
		*x.all = append(*x.all, *x.one...)
	}
	for _, s := range one.shares {
		c.spend(s.what, s.values...)
	}
}
