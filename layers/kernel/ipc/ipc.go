// SPDX-License-Identifier: Apache-2.0

// Package ipc looks after what a container keeps in its IPC namespace beside
// its processes: System V shared memory, semaphores and message queues, and
// POSIX message queues. This version carries none of it. An object that exists
// is refused by name, since a restored container would go on without it; one
// that is attached or open is refused by the subsystems memory and file, too.
//
// An IPC namespace that is not the container's own (a pod's, the host's)
// outlives the container, and is none of this package's business.
//
// Sources: sysvipc(7), mq_overview(7), ipc_namespaces(7), /proc/sysvipc in
// proc(5).
package ipc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Name is what the subsystem's records are called by. It has none yet.
const Name = "ipc"

// Subsystem is one event's IPC namespace.
type Subsystem struct{ env target.Env }

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem { return &Subsystem{env: env} }

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Preflight names the objects.
func (s *Subsystem) Preflight(context.Context) ([]record.Finding, error) {
	if !s.env.Source.OwnIPC {
		return nil, nil
	}
	list, err := objects(s.env.Source.Init)
	if err != nil {
		return nil, fmt.Errorf("ipc: pid %d: %w", s.env.Source.Init, err)
	}
	out := make([]record.Finding, len(list))
	for i, o := range list {
		out[i] = record.Finding{FD: -1, Subsystem: Name, What: o.what, Why: notCarried, Remedy: o.remedy}
	}
	return out, nil
}

const notCarried = "not carried by this version: a restored container would not have it"

// Checkpoint looks once more when the processes have stopped.
func (s *Subsystem) Checkpoint(_ context.Context, step record.Step, _ record.Sink) (record.Progress, error) {
	if step.Stage != record.StageResidual || step.Process != record.Shared || !s.env.Source.OwnIPC {
		return record.Progress{Done: true}, nil
	}
	list, err := objects(s.env.Source.Init)
	if err == nil && len(list) > 0 {
		err = fmt.Errorf("%s, made since the pre-flight: %s (and %d more)", list[0].what, notCarried, len(list)-1)
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("ipc: pid %d: %w", s.env.Source.Init, err)
	}
	return record.Progress{Done: true, Advanced: true}, nil
}

// Restart has nothing to import.
func (s *Subsystem) Restart(_ context.Context, _ record.Step, in *record.Record) (record.Progress, error) {
	if in != nil {
		return record.Progress{}, fmt.Errorf("ipc: %s: this version knows no such kind", in.Header)
	}
	return record.Progress{Done: true}, nil
}

// Status has nothing to count.
func (s *Subsystem) Status() record.Status { return record.Status{} }

// Fault cannot be served.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("ipc: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump has nothing to tell.
func (s *Subsystem) Dump(io.Writer) error { return nil }
