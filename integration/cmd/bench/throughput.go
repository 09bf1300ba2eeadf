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
// needs for the copy alone.
func throughput(ctx context.Context, b *bench) error {
	for field := range strings.SplitSeq(b.sizes, ",") {
		size, err := strconv.Atoi(field)
		if err != nil || size < 1 {
			return fmt.Errorf("size %q is no number of megabytes", field)
		}
		b.rates(ctx, size)
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

func (b *bench) rates(ctx context.Context, size int) {
	s := b.report.Add(title("Throughput to tmpfs", size, 0), fmt.Sprintf(
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
	bytes := conf.Bytes()
	rate := func(ms stats.Series) stats.Series { return ms.Rates(bytes) }
	s.Row("process_vm_readv alone", report.Rate, rate(ref.read))
	s.Row("process_vm_readv into a new file there", report.Rate, rate(ref.readFile))
	s.Row("mig: checkpoint, runs on", report.Rate, rate(mig.leave))
	s.Row("mig: checkpoint, exits", report.Rate, rate(mig.checkpoint))
	s.Row("mig: checkpoint, while processes are held", report.Rate, rate(mig.downtime))
	s.Row("runc + CRIU: checkpoint, exits", report.Rate, rate(peer.checkpoint))
	s.Row("process_vm_writev alone, untouched", report.Rate, rate(ref.fresh))
	s.Row("process_vm_writev alone, once more", report.Rate, rate(ref.again))
	s.Row("mig: restore", report.Rate, rate(mig.restore))
	s.Row("mig: restore, without the container's creation", report.Rate, rate(mig.fill))
	s.Row("runc + CRIU: restore", report.Rate, rate(peer.restore))
	s.Row("mig: checkpoint + restore", report.Milliseconds, mig.total())
	s.Row("runc + CRIU: checkpoint + restore", report.Milliseconds, peer.total())
	s.AtLeast("checkpoint, of process_vm_readv", "", ref.read.Over(mig.checkpoint), goalOfReference)
	s.Row("ratio: checkpoint of process_vm_readv into a new file there", "", ref.readFile.Over(mig.checkpoint))
	s.AtLeast("restore without the container's creation, of process_vm_writev to untouched memory", "", ref.fresh.Over(mig.fill), goalOfReference)
	s.AtLeast("restore without the container's creation, of process_vm_writev to touched memory", "", ref.again.Over(mig.fill), goalOfReference)
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
