// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/io-mig/mig/integration/bench/driver"
	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/stats"
	"github.com/io-mig/mig/integration/bench/victim"
)

// peakGoal bounds the shim's own memory, whatever the container's size.
const peakGoal = 64

// peak is how much memory mig itself needs for 2 GB. It is measured apart from
// everything else, as looking takes time.
func peak(ctx context.Context, b *bench) error {
	conf := victim.Config{Megabytes: 2048}
	s := b.report.Add(title("Memory of mig itself", conf.Megabytes, 0), "The most that was resident, program text included (VmHWM).")
	var shim, saving, restoring stats.Series
	for range 3 {
		if err := b.peakOnce(ctx, conf, &shim, &saving, &restoring); err != nil {
			s.Fail("mig", err)
			break
		}
	}
	s.Row("shim, checkpoint", report.Megabytes, shim)
	s.Row("engine, checkpoint", report.Megabytes, saving)
	s.Row("engine, restore", report.Megabytes, restoring)
	s.AtMost("shim's memory", report.Megabytes, shim, peakGoal)
	s.AtMost("engine's memory, checkpoint", report.Megabytes, saving, peakGoal)
	s.AtMost("engine's memory, restore", report.Megabytes, restoring, peakGoal)
	return nil
}

func (b *bench) peakOnce(ctx context.Context, conf victim.Config, shim, saving, restoring *stats.Series) (err error) {
	source, err := b.container(conf)
	if err != nil {
		return err
	}
	defer os.RemoveAll(source.Bundle)
	if err := b.mig.Run(ctx, source); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.mig.Remove(context.WithoutCancel(ctx), source)) }()
	if _, err := victim.Attach(ctx, source.Pid, conf); err != nil {
		return err
	}
	image := b.image()
	defer os.RemoveAll(image)
	w := watchChildren(source.ShimPid())
	_, err = b.mig.Checkpoint(ctx, source, image, true)
	if most, watchErr := w.end(); err == nil && watchErr == nil {
		saving.Put(most)
	} else {
		return errors.Join(err, watchErr)
	}
	most, err := highWater(source.ShimPid())
	if err != nil {
		return err
	}
	shim.Put(most)
	return b.peakRestore(ctx, conf, image, restoring)
}

// peakRestore watches the engine of a restore. Its shim is known only between
// Create and Start, therefore the watch begins at any shim that appears.
func (b *bench) peakRestore(ctx context.Context, conf victim.Config, image string, restoring *stats.Series) (err error) {
	target, err := b.container(conf)
	if err != nil {
		return err
	}
	defer os.RemoveAll(target.Bundle)
	stop := make(chan struct{})
	watched := make(chan *watch, 1)
	go func() { watched <- awaitShim(target, stop) }()
	_, err = b.mig.Restore(ctx, target, image)
	close(stop)
	w := <-watched
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.mig.Remove(context.WithoutCancel(ctx), target)) }()
	most, err := w.end()
	if err == nil {
		restoring.Put(most)
	}
	return err
}

// awaitShim watches the shim that serves a container as soon as there is one.
func awaitShim(c *driver.Container, stop <-chan struct{}) *watch {
	for {
		if pid := findShim("containerd-shim-mig-v1", c.ID); pid > 0 {
			return watchChildren(pid)
		}
		select {
		case <-stop:
			return watchChildren(0)
		case <-time.After(time.Millisecond):
		}
	}
}
