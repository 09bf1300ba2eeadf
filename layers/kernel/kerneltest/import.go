// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
)

// Import makes a new container out of an image. On error nothing of it is
// left.
func (c *Container) Import(image *Image, constructors ...Constructor) (*Container, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n, frame, done, err := c.frame()
	if err != nil {
		return nil, err
	}
	defer done()
	if err := importInto(ctx, frame, image, instances(target.Env{Frame: frame, Workers: 2}, constructors)); err != nil {
		n.Stop()
		return nil, fmt.Errorf("import: %w%s", err, n.errors.String())
	}
	return n, nil
}

// frame starts a container for a copy of c. done closes what it was started
// with, when the import is over.
func (c *Container) frame() (n *Container, f *target.Frame, done func(), err error) {
	elf, err := tracer.FrameFile()
	if err != nil {
		return nil, nil, nil, err
	}
	defer elf.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "engine"), os.NewFile(uintptr(pair[1]), "frame")
	defer theirs.Close()
	// libcontainer, too, starts a frame as root of its user namespace.
	n = newContainer(c.t, c.program, []*os.File{elf, theirs}, 0, 0, []string{"/proc/self/fd/3"})
	n.generation = c.generation + 1
	allowed := c.program.Allowed
	if allowed == nil {
		allowed = Root()
	}
	return n, &target.Frame{
		Init: n.Pid, Socket: int(mine.Fd()), Allowed: *allowed, OwnIPC: c.program.IPC, OwnUTS: c.program.UTS,
		Started: func(context.Context) error { return n.letGo() },
	}, func() { mine.Close() }, nil
}

func importInto(ctx context.Context, frame *target.Frame, image *Image, list []kernel.Subsystem) (err error) {
	ids, err := frame.Hold(ctx)
	if err != nil {
		return err
	}
	first := frame.Task(ids[0])
	if err := first.Setup(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, first.Cleanup(ctx), frame.Release(ctx))
		}
	}()
	if err := receive(ctx, image, list); err != nil {
		return err
	}
	if ids, err = frame.Hold(ctx); err != nil {
		return err
	}
	if len(ids) != len(image.Processes) {
		return fmt.Errorf("the image has %d processes, %d were made", len(image.Processes), len(ids))
	}
	for _, stage := range record.ImportStages {
		for _, s := range list {
			for _, id := range append([]record.ProcessID{record.Shared}, ids...) {
				err := untilDone(func(round int) (record.Progress, error) {
					return s.Restart(ctx, record.Step{Stage: stage, Process: id, Round: round}, nil)
				})
				if err != nil {
					return fmt.Errorf("%s: %w", stage, err)
				}
			}
		}
	}
	for _, id := range ids {
		if err := frame.Task(id).Restart(ctx); err != nil {
			return err
		}
	}
	return frame.Release(ctx)
}

// receive hands every record to its subsystem.
func receive(ctx context.Context, image *Image, list []kernel.Subsystem) error {
	byName := map[string]kernel.Subsystem{}
	for _, s := range list {
		byName[s.Name()] = s
	}
	for _, r := range image.Records {
		if err := r.Verify(); err != nil {
			return err
		}
		s := byName[r.Subsystem]
		if s == nil {
			return fmt.Errorf("%s: no such subsystem", r.Header)
		}
		if _, err := s.Restart(ctx, record.Step{Stage: record.StageReceive, Process: r.Process}, r); err != nil {
			return err
		}
	}
	return nil
}
