// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/stats"
	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// contender is one of the two shims under containerd.
type contender struct {
	name, shim     string
	run, detached  stats.Series // ms
	rss, pss, anon stats.Series // MB
}

// idleRuns bounds its rounds, most of which are waits.
const idleRuns = 6

// idle compares what a container costs that is only run: the time of `ctr run`
// and the memory of a shim with one container that sleeps.
func idle(ctx context.Context, b *bench) (err error) {
	s := b.report.Add("ctr run, and a shim with one idle container", "containerd 2.4, the same busybox image, in turn. Memory 3 s after the start.")
	d, err := daemon.Start(ctx, b.tree, daemon.Config{Version: daemon.V24})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	dir, err := os.MkdirTemp(b.scope.Dir, "image-")
	if err != nil {
		return err
	}
	archive, err := image.Busybox.Write(dir)
	if err != nil {
		return err
	}
	if err := d.Import(ctx, archive); err != nil {
		return err
	}
	mig := &contender{name: "io.mig.v1", shim: "containerd-shim-mig-v1"}
	runc := &contender{name: "io.containerd.runc.v2", shim: "containerd-shim-runc-v2"}
	for round := range min(b.runs, idleRuns) + 1 {
		for _, r := range []*contender{mig, runc} {
			if err := r.measure(ctx, d, round, round > 0); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				s.Fail(r.name, err)
			}
		}
	}
	for _, r := range []*contender{mig, runc} {
		s.Row(r.name+": ctr run --rm ... true", report.Milliseconds, r.run)
		s.Row(r.name+": ctr run --detach", report.Milliseconds, r.detached)
		s.Row(r.name+": shim, proportional (PSS)", report.Megabytes, r.pss)
		s.Row(r.name+": shim, resident (RSS)", report.Megabytes, r.rss)
		s.Row(r.name+": shim, anonymous", report.Megabytes, r.anon)
	}
	s.AtMost("ctr run --rm, of runc's", "", mig.run.Over(runc.run), 1)
	s.AtMost("ctr run --detach, of runc's", "", mig.detached.Over(runc.detached), 1)
	s.AtMost("shim's PSS, of runc's", "", mig.pss.Over(runc.pss), 1)
	return nil
}

// settle is when a shim counts as idle: both give memory back after a while.
const settle = 3 * time.Second

func (r *contender) measure(ctx context.Context, d *daemon.Daemon, round int, count bool) error {
	id := fmt.Sprintf("%s-%d", r.shim[len("containerd-shim-"):], round)
	once := d.Ctr(ctx, "run", "--rm", "--null-io", "--runtime", r.name, image.Busybox.Name, id, "true")
	if err := once.Err(); err != nil {
		return err
	}
	id += "-idle"
	defer d.Ctr(context.WithoutCancel(ctx), "containers", "delete", id)
	defer d.Ctr(context.WithoutCancel(ctx), "tasks", "delete", "--force", id)
	detached := d.Ctr(ctx, "run", "--detach", "--null-io", "--runtime", r.name, image.Busybox.Name, id, "sleep", "600")
	if err := detached.Err(); err != nil {
		return err
	}
	time.Sleep(settle)
	pid := findShim(r.shim, id)
	if pid == 0 {
		return fmt.Errorf("no process %s of %s", r.shim, id)
	}
	pss, err := field(pid, "smaps_rollup", "Pss")
	rss, rssErr := field(pid, "smaps_rollup", "Rss")
	anonymous, anonErr := field(pid, "smaps_rollup", "Anonymous")
	if err := errors.Join(err, rssErr, anonErr); err != nil {
		return err
	}
	if count {
		r.run.Add(once.Took)
		r.detached.Add(detached.Took)
		r.pss.Put(pss)
		r.rss.Put(rss)
		r.anon.Put(anonymous)
	}
	return nil
}
