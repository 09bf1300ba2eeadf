// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"os"
	"path/filepath"
)

// State is a container's place in the OCI life cycle.
type State string

// The states of a container. "creating" is not among them: a Container exists
// only once it has been created.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StatePaused  State = "paused"
	StateStopped State = "stopped"
)

// Status is a snapshot: it may be out of date at once.
type Status struct {
	State State
	// Pid is the init process in this process's pid namespace, 0 when stopped.
	Pid int
}

// Status reads the state from the kernel and the state directory. It waits for
// nobody and has no side effects.
func (c *Container) Status() (Status, error) {
	if c.init.exited() {
		return Status{State: StateStopped}, nil
	}
	s := Status{State: StateRunning, Pid: c.init.pid}
	frozen, err := c.frozen()
	if err != nil {
		return Status{}, c.errorf("status", err)
	}
	if frozen {
		s.State = StatePaused
		return s, nil
	}
	switch _, err := os.Stat(filepath.Join(c.StateDir(), execFifo)); {
	case err == nil:
		s.State = StateCreated
	case !errors.Is(err, os.ErrNotExist):
		return Status{}, c.errorf("status", err)
	}
	return s, nil
}
