// SPDX-License-Identifier: Apache-2.0

// Package container is what control acts on: a container that is saved, or a frame
// that becomes one, with the constructor sets of their processes.
package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
)

// Source is a target.Source as control sees it.
type Source struct{ *target.Source }

// Process is the constructor set of one process.
func (s Source) Process(id record.ProcessID) control.Constructor {
	p := s.Source.Process(id)
	if p == nil {
		return none(id)
	}
	return mayEnd{p}
}

// Traced finds the tracee of a process.
func (s Source) Traced(id record.ProcessID) *tracer.Process {
	if p := s.Source.Process(id); p != nil {
		return p.Traced
	}
	return nil
}

// Reside is control.Tuning.Reside: each process has a tracer of its own.
func (s Source) Reside(ids []record.ProcessID) func(func() error) error {
	if len(ids) != 1 {
		return nil
	}
	if p := s.Traced(ids[0]); p != nil {
		return p.Do
	}
	return nil
}

// Frame is a target.Frame as control sees it.
type Frame struct{ *target.Frame }

// Process is the constructor set of one process.
func (f Frame) Process(id record.ProcessID) control.Constructor {
	t := f.Task(id)
	if t == nil {
		return none(id)
	}
	return t
}

// Traced finds the tracee of a process.
func (f Frame) Traced(id record.ProcessID) *tracer.Process {
	if t := f.Task(id); t != nil {
		return t.Traced
	}
	return nil
}

// Reside is control.Tuning.Reside: one thread traces all processes.
func (f Frame) Reside(ids []record.ProcessID) func(func() error) error {
	for _, id := range ids {
		if p := f.Traced(id); p != nil {
			return p.Do
		}
	}
	return nil
}

// mayEnd tells control when a process ended by itself: a container that exits
// in the middle is no failure of ours.
type mayEnd struct{ control.Constructor }

// Setup translates the ends that the lower layers know.
func (m mayEnd) Setup(ctx context.Context) error {
	err := m.Constructor.Setup(ctx)
	if err != nil && (errors.Is(err, tracer.ErrExited) || procfs.IsGone(err)) {
		return fmt.Errorf("%w: %w", control.ErrGone, err)
	}
	return err
}

// none is a process that nobody listed.
type none record.ProcessID

func (n none) err() error { return fmt.Errorf("process %d is not one of the container's", n) }

func (n none) Setup(context.Context) error   { return n.err() }
func (n none) Restart(context.Context) error { return n.err() }
func (n none) Cleanup(context.Context) error { return n.err() }
