// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/integration/bench/report"
	"github.com/io-mig/mig/integration/bench/stats"
	"github.com/io-mig/mig/integration/bench/victim"
)

// goalOfReference is how much of what process_vm_readv and process_vm_writev
// do alone a checkpoint and a restore should reach.
const goalOfReference = 0.70

// throughput is how fast memory is saved and restored, beside what the kernel
// needs for the copy alone: on a tmpfs of huge pages for each size, and for the
// middle one on a tmpfs of small pages, too.
func throughput(ctx context.Context, b *bench) error {
	defer func(dir string) { b.images = dir }(b.images)
	sizes := strings.Split(b.sizes, ",")
	for i, field := range sizes {
		size, err := strconv.Atoi(field)
		if err != nil || size < 1 {
			return fmt.Errorf("size %q is no number of megabytes", field)
		}
		if b.huge != "" {
			b.images = b.huge
			b.rates(ctx, size, "huge="+hugeWithinSize, true)
		}
		if b.huge == "" || i == len(sizes)/2 {
			b.images = b.plain
			b.rates(ctx, size, "4 KiB pages", false)
		}
		if err := b.flush(); err != nil {
			return err
		}
	}
	return nil
}

// references are the kernel's calls alone, in milliseconds.
type references struct {
	read     stats.Series // process_vm_readv into a buffer per worker
	readFile stats.Series // process_vm_readv into a new file on the tmpfs
	fresh    stats.Series // process_vm_writev into untouched memory
	again    stats.Series // process_vm_writev once more
}

// rates fills one table. The goals hold where the tmpfs does not cost more than
// the copy: see docs/benchmarks.md.
func (b *bench) rates(ctx context.Context, size int, pages string, goals bool) {
	s := b.report.Add(title("Throughput to tmpfs, "+pages, size, 0), fmt.Sprintf(
		"process_vm_readv and process_vm_writev: of the same process, with %d workers and pieces of %d KiB, right before and after. Untouched: memory that was just mapped, as a restore has it.",
		b.workers(), victim.PieceSize>>10))
	conf := victim.Config{Megabytes: size}
	mig, peer, all := b.entrants()
	var ref references
	mig.hooks = hooks{
		before: func(_ context.Context, v *victim.Victim, count bool) error {
			return b.readReferences(v, &ref, count)
		},
		after: func(ctx context.Context, v *victim.Victim, count bool) error {
			return b.writeReferences(ctx, v, &ref, count)
		},
	}
	b.contest(ctx, s, conf, all...)
	rate := func(what string, ms stats.Series) { s.Row(what, report.Rate, ms.Rates(conf.Bytes())) }
	filling := mig.share("restore: receiving")
	rate("process_vm_readv alone", ref.read)
	rate("process_vm_readv into a new file there", ref.readFile)
	rate("mig: checkpoint, exits, while processes are held", mig.downtime)
	rate("mig: checkpoint, until the image is complete", mig.engineCheckpoint)
	rate("mig: checkpoint, runs on", mig.leave)
	rate("mig: checkpoint, exits", mig.checkpoint)
	rate("runc + CRIU: checkpoint, runs on", peer.leave)
	rate("runc + CRIU: checkpoint, exits", peer.checkpoint)
	s.Row("mig: silence of that which runs on", report.Milliseconds, mig.quiet)
	s.Row("runc + CRIU: silence of that which runs on", report.Milliseconds, peer.quiet)
	s.Row("ratio mig / peer: silence of that which runs on", "", mig.quiet.Over(peer.quiet))
	rate("process_vm_writev alone, untouched", ref.fresh)
	rate("process_vm_writev alone, once more", ref.again)
	rate("mig: restore, while memory is filled", filling)
	rate("mig: restore, without the container's creation", mig.fill)
	rate("mig: restore", mig.restore)
	rate("runc + CRIU: restore", peer.restore)
	s.Row("mig: checkpoint + restore", report.Milliseconds, mig.total())
	s.Row("runc + CRIU: checkpoint + restore", report.Milliseconds, peer.total())
	s.Row("ratio mig / peer: checkpoint + restore", "", mig.total().Over(peer.total()))
	s.Row("ratio: checkpoint while held, of process_vm_readv into a new file there", "", ref.readFile.Over(mig.downtime))
	compare := func(what string, r stats.Series) {
		if goals {
			s.AtLeast(what, "", r, goalOfReference)
		} else {
			s.Row("ratio: "+what, "", r)
		}
	}
	compare("checkpoint that exits, while held, of process_vm_readv", ref.read.Over(mig.downtime))
	compare("checkpoint that runs on, by the program's silence, of process_vm_readv", ref.read.Over(mig.quiet))
	compare("checkpoint as the client sees it (runs on), of process_vm_readv", ref.read.Over(mig.leave))
	compare("restore while memory is filled, of process_vm_writev to untouched memory", ref.fresh.Over(filling))
	compare("restore as the client sees it without the container's creation, of process_vm_writev to untouched memory", ref.fresh.Over(mig.fill))
	compare("restore while memory is filled, of process_vm_writev to touched memory", ref.again.Over(filling))
	b.breakdown(size, 0, &mig.cycles)
}

// readReferences measures the calls that a checkpoint is made of.
func (b *bench) readReferences(v *victim.Victim, ref *references, count bool) error {
	read, err := v.ReadAll(b.workers())
	if err != nil {
		return err
	}
	toFile, err := b.readToFile(v)
	if err == nil && count {
		ref.read.Add(read)
		ref.readFile.Add(toFile)
	}
	return err
}

// readToFile reads into the mapping of a new file beside the images.
func (b *bench) readToFile(v *victim.Victim) (_ time.Duration, err error) {
	f, err := os.CreateTemp(b.images, "reference-")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return 0, err
	}
	if err := f.Truncate(int64(v.Config.Bytes())); err != nil {
		return 0, err
	}
	dest, err := unix.Mmap(int(f.Fd()), 0, v.Config.Bytes(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 0, fmt.Errorf("map a file of %d bytes: %w", v.Config.Bytes(), err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(dest)) }()
	return v.ReadInto(b.workers(), dest)
}

// writeReferences measures the calls that a restore is made of.
func (b *bench) writeReferences(ctx context.Context, v *victim.Victim, ref *references, count bool) error {
	if err := v.Renew(ctx); err != nil {
		return err
	}
	fresh, err := v.WriteAll(b.workers())
	if err != nil {
		return err
	}
	again, err := v.WriteAll(b.workers())
	if err == nil && count {
		ref.fresh.Add(fresh)
		ref.again.Add(again)
	}
	return err
}

// title names what a section's program holds.
func title(what string, megabytes, threads int) string {
	t := fmt.Sprintf("%s: %d MB", what, megabytes)
	if threads > 0 {
		t += fmt.Sprintf(", %d threads", threads)
	}
	return t
}
