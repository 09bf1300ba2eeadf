// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// execFifo is the name of libcontainer's FIFO in the state directory: its
// presence tells "created" from "running".
const execFifo = "exec.fifo"

// Container is one container, from its creation until Destroy.
type Container struct {
	// These are set before anybody else sees the container.
	id         string
	root       string
	bundle     string
	target     *specs.Process
	privatePID bool
	streams    [3]Stream
	init       *Process
	cg         cgroups.Manager

	startMu   sync.Mutex // one Start at a time
	updateMu  sync.Mutex // one Update at a time: it reads, changes and writes state.json
	destroyMu sync.Mutex // one Destroy at a time; guards destroyed
	destroyed bool
}

// ID is the name the container was created with.
func (c *Container) ID() string { return c.id }

// Bundle is the absolute path of the bundle directory.
func (c *Container) Bundle() string { return c.bundle }

// StateDir is where the container's state is kept: Root/ID.
func (c *Container) StateDir() string { return filepath.Join(c.root, c.id) }

// Init is the container's first process. It is never nil.
func (c *Container) Init() *Process { return c.init }

// TargetProcess is a copy of the spec's process section. For a frame it is
// what the engine has to make of it, resource limits included; for any other
// container it is what runs.
func (c *Container) TargetProcess() *specs.Process { return copyProcess(c.target) }

// view opens libcontainer's object for this container anew, as each runc
// command does. Its mutex is then held by one operation of ours only.
func (c *Container) view() (*libcontainer.Container, error) {
	v, err := libcontainer.Load(c.root, c.id)
	if errors.Is(err, libcontainer.ErrNotExist) || errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotExist
	}
	return v, err
}

// errorf says which container an error is about, and keeps its cause.
func (c *Container) errorf(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("container %s: %s: %w", c.id, op, err)
}
