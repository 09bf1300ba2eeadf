// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
)

// Image is what an export made, in memory.
type Image struct {
	Records   []*record.Record
	Processes []record.ProcessID
}

// instances makes the subsystems of one event in their order.
func instances(env target.Env, constructors []Constructor) []kernel.Subsystem {
	var out []kernel.Subsystem
	for _, fn := range constructors {
		out = append(out, fn(env))
	}
	slices.SortStableFunc(out, func(a, b kernel.Subsystem) int { return order[a.Name()] - order[b.Name()] })
	return out
}

// Export makes an image of the container and lets it run on, or kills it. On
// error it runs on.
func (c *Container) Export(leaveRunning bool, constructors ...Constructor) (*Image, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	source, err := c.source()
	if err != nil {
		return nil, err
	}
	list := instances(target.Env{Source: source, Workers: 2}, constructors)
	if err := preflight(ctx, list); err != nil {
		return nil, err
	}
	image := &Image{}
	err = hold(ctx, source, image)
	if err == nil {
		err = image.collect(ctx, list)
	}
	if err != nil {
		err = fmt.Errorf("export pid %d: %w", c.Pid, err)
	}
	if err == nil && !leaveRunning {
		err = source.Seal(ctx)
	}
	for _, p := range source.Processes() {
		if err == nil && !leaveRunning {
			err = errors.Join(err, p.Cleanup(ctx))
		} else {
			err = errors.Join(err, p.Restart(ctx))
		}
	}
	return image, errors.Join(err, source.Release(ctx))
}

// GiveUp is an export that is given up while the container is held: no process was
// set up by then, and control releases the container as it is.
func (c *Container) GiveUp(constructors ...Constructor) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	source, err := c.source()
	if err != nil {
		return err
	}
	instances(target.Env{Source: source, Workers: 2}, constructors)
	_, err = source.Hold(ctx)
	return errors.Join(err, source.Release(ctx))
}

// source describes the container for an export.
func (c *Container) source() (*target.Source, error) {
	source, err := target.NewSource(c.Pid, c.Freezer, c.Stdio)
	if err != nil {
		return nil, err
	}
	source.OwnIPC = c.program.IPC
	if c.program.UTS {
		source.UTS = &target.UTSNames{}
	}
	source.SeccompFilters = c.program.SeccompFilters
	if c.program.Filtered {
		source.SeccompFilters++
	}
	return source, nil
}

// preflight asks every subsystem; what it refuses is an error.
func preflight(ctx context.Context, list []kernel.Subsystem) error {
	var errs []error
	for _, s := range list {
		p, ok := s.(control.Preflighter)
		if !ok {
			continue
		}
		findings, err := p.Preflight(ctx)
		if err != nil {
			return fmt.Errorf("pre-flight of %s: %w", s.Name(), err)
		}
		for _, f := range findings {
			if !f.Warning {
				errs = append(errs, errors.New(f.String()))
			}
		}
	}
	return errors.Join(errs...)
}

// hold stops all processes, as control does: until no new one appears.
func hold(ctx context.Context, source *target.Source, image *Image) error {
	up := map[record.ProcessID]bool{}
	for {
		ids, err := source.Hold(ctx)
		if err != nil {
			return err
		}
		fresh := 0
		for _, id := range ids {
			if up[id] {
				continue
			}
			fresh++
			if err := source.Process(id).Setup(ctx); errors.Is(err, tracer.ErrExited) || procfs.IsGone(err) {
				continue // it has ended meanwhile
			} else if err != nil {
				return err
			}
			up[id] = true
		}
		if fresh == 0 {
			image.Processes = ids
			return nil
		}
	}
}

// collect runs the residual stage.
func (im *Image) collect(ctx context.Context, list []kernel.Subsystem) error {
	var mu sync.Mutex
	sink := record.SinkFunc(func(_ context.Context, r *record.Record) error {
		kept := &record.Record{Header: r.Header, Payload: slices.Clone(r.Payload)}
		if err := kept.Seal(); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		im.Records = append(im.Records, kept)
		return nil
	})
	for _, s := range list {
		for _, id := range append([]record.ProcessID{record.Shared}, im.Processes...) {
			err := untilDone(func(round int) (record.Progress, error) {
				return s.Checkpoint(ctx, record.Step{Stage: record.StageResidual, Process: id, Round: round}, sink)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// untilDone repeats a step; one that never ends is a defect.
func untilDone(step func(round int) (record.Progress, error)) error {
	for round := range 100000 {
		p, err := step(round)
		if err != nil || p.Done {
			return err
		}
		if !p.Advanced {
			return errors.New("a step neither advanced nor was done")
		}
	}
	return errors.New("a stage does not end")
}
