// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"time"

	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/io-mig/mig/shim/stdio"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// process is the init of a task or an exec session. The fields below the line
// are guarded by the task's mutex.
type process struct {
	// execID is empty for the init.
	execID string
	// spec is what an exec session runs, nil for the init.
	spec *specs.Process
	uris stdio.URIs
	// ioUID and ioGID own the pipes of all of the task's processes; set in
	// the init.
	ioUID, ioGID int
	// done is closed when the exit is known and its event is in the queue.
	done chan struct{}

	// ---
	phase phase
	// starting is open while a start is under way, which an exit must not
	// overtake; nil otherwise.
	starting chan struct{}
	rt       child          // nil before the process exists
	streams  *stdio.Streams // nil before they are opened
	status   uint32
	exitedAt time.Time
}

// phase is the life of an exec session; the init's is the task's state.
type phase int

const (
	phaseCreated phase = iota
	phaseStarting
	phaseRunning
	phaseStopped
	phaseDeleted
)

func newProcess(execID string, spec *specs.Process, uris stdio.URIs) *process {
	return &process{execID: execID, spec: spec, uris: uris, done: make(chan struct{})}
}

// exited tells whether the exit is known.
func (p *process) exited() bool { return !p.exitedAt.IsZero() }

// over tells whether the process has ended, also if that is not published yet.
func (p *process) over() bool {
	if p.rt == nil {
		return false
	}
	select {
	case <-p.rt.Done():
		return true
	default:
		return false
	}
}

// pid is 0 as long as there is no process.
func (p *process) pid() int {
	if p.rt == nil {
		return 0
	}
	return p.rt.Pid()
}

// status is the session's own, as if the task were running.
func (p phase) status() tasktypes.Status {
	switch p {
	case phaseCreated, phaseStarting:
		return tasktypes.Status_CREATED
	case phaseRunning:
		return tasktypes.Status_RUNNING
	default:
		return tasktypes.Status_STOPPED
	}
}
