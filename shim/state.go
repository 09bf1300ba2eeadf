// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"

	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
)

// state is where a task is. States with a during- name are transitions: one
// operation is under way, and the state before and after it is known.
type state int

const (
	stateCreated state = iota
	stateFrame         // created for a restore: a frame waits to be filled
	stateRunning
	statePaused
	stateStopped
	stateDeleted

	duringStart
	duringRestore
	duringPause
	duringResume
	duringCheckpoint       // of a running task
	duringPausedCheckpoint // of a paused one, which stays paused
	duringDoubt            // of a running one, whose copy may run: it is frozen for who knows how long
	duringDelete
)

// operation is what the state machine rules on. Everything else (kill, wait,
// state, stats, pids, resize, close) is possible in every state.
type operation int

const (
	opStart operation = iota
	opPause
	opResume
	opCheckpoint
	opDelete
	opExec   // add an exec session: takes no time
	opUpdate // of resources
)

// step is a transition: the state while it lasts and after it succeeded. After
// a failure the task is back where it came from.
type step struct{ during, after state }

var transitions = map[operation]map[state]step{
	opStart: {
		stateCreated: {duringStart, stateRunning},
		stateFrame:   {duringRestore, stateRunning},
	},
	opPause:  {stateRunning: {duringPause, statePaused}},
	opResume: {statePaused: {duringResume, stateRunning}},
	opCheckpoint: {
		stateRunning: {duringCheckpoint, stateRunning},
		statePaused:  {duringPausedCheckpoint, statePaused},
	},
	opDelete: {
		stateCreated: {duringDelete, stateDeleted},
		stateFrame:   {duringDelete, stateDeleted},
		stateStopped: {duringDelete, stateDeleted},
	},
}

// refusals has the words of runc's shim, which clients and tests know. A
// missing entry for opExec or opUpdate means that the operation is allowed.
var refusals = map[operation]map[state]string{
	opStart: {
		stateRunning: "cannot start a running process",
		statePaused:  "cannot start a paused process",
		stateStopped: "cannot start a stopped process",
		stateDeleted: "cannot start a deleted process",
	},
	opPause: {
		stateCreated: "cannot pause task in created state",
		stateFrame:   "cannot pause task in created state",
		statePaused:  "cannot pause a paused container",
		stateStopped: "cannot pause a stopped container",
		stateDeleted: "cannot pause a deleted process",
		duringDoubt:  "cannot pause a paused container",
	},
	opResume: {
		stateCreated: "cannot resume task in created state",
		stateFrame:   "cannot resume task in created state",
		stateRunning: "cannot resume a running process",
		stateStopped: "cannot resume a stopped container",
		stateDeleted: "cannot resume a deleted process",
		// A client would wait for ever, and must not have two of a container.
		duringDoubt: "cannot resume a container whose move is in doubt: its copy may run on the other host (mig status shows it, mig abort --force lets it go on)",
	},
	opCheckpoint: {
		stateCreated: "cannot checkpoint a task in created state",
		stateFrame:   "cannot checkpoint a task in created state",
		stateStopped: "cannot checkpoint a stopped container",
		stateDeleted: "cannot checkpoint a deleted process",
		duringDoubt:  "cannot checkpoint a container whose move is in doubt (mig status shows it)",
	},
	opDelete: {
		stateRunning: "cannot delete a running process",
		statePaused:  "cannot delete a paused process",
		stateDeleted: "cannot delete a deleted process",
		// These can last long, and a client that deletes does not wait.
		duringCheckpoint:       "cannot delete a process that is being checkpointed",
		duringPausedCheckpoint: "cannot delete a process that is being checkpointed",
		duringDoubt:            "cannot delete a process whose move is in doubt",
		duringRestore:          "cannot delete a process that is being restored",
	},
	opExec: {
		stateFrame:   "cannot exec in a created state",
		statePaused:  "cannot exec in a paused state",
		duringDoubt:  "cannot exec in a paused state",
		stateStopped: "cannot exec in a stopped state",
		stateDeleted: "cannot exec in a deleted state",
	},
	opUpdate: {
		stateStopped: "cannot update a stopped container",
		stateDeleted: "cannot update a deleted process",
	},
}

// refuse is the error for an operation that s does not allow, nil if there is
// no objection on record.
func refuse(op operation, s state) error {
	text, ok := refusals[op][s]
	if !ok {
		return nil
	}
	if s == stateDeleted {
		return fmt.Errorf("%s: %w", text, errdefs.ErrNotFound)
	}
	return fmt.Errorf("%s: %w", text, errdefs.ErrFailedPrecondition)
}

// moving tells whether an operation is under way.
func (s state) moving() bool { return s >= duringStart }

// status is how the task API names the state.
func (s state) status() tasktypes.Status {
	switch s {
	case stateCreated, stateFrame, duringStart, duringRestore:
		return tasktypes.Status_CREATED
	case stateRunning, duringCheckpoint:
		return tasktypes.Status_RUNNING
	case duringPause:
		return tasktypes.Status_PAUSING
	case statePaused, duringResume, duringPausedCheckpoint, duringDoubt:
		return tasktypes.Status_PAUSED
	default:
		return tasktypes.Status_STOPPED
	}
}

// String names the state in messages.
func (s state) String() string {
	names := map[state]string{
		stateCreated: "created", stateFrame: "created for a restore",
		stateRunning: "running", statePaused: "paused",
		stateStopped: "stopped", stateDeleted: "deleted",
		duringStart: "being started", duringRestore: "being restored",
		duringPause: "being paused", duringResume: "being resumed",
		duringCheckpoint: "being checkpointed", duringPausedCheckpoint: "being checkpointed",
		duringDoubt: "frozen, its move in doubt", duringDelete: "being deleted",
	}
	return names[s]
}
