// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/intelrdt"
	"github.com/opencontainers/runc/libcontainer/system"
	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Load opens a container that another process created: for `delete` after the
// shim has died, even if it died in the middle of Create (then all one can do is
// Destroy). Init is not a child of ours: Done works, but the exit status cannot
// be known and is reported as 137 (128 + SIGKILL).
//
// Errors: ErrNotExist if root/id has no state of ours.
func Load(root, id string) (*Container, error) {
	c, err := load(root, id)
	if err != nil {
		return nil, fmt.Errorf("load container %q from %s: %w", id, root, err)
	}
	return c, nil
}

func load(root, id string) (*Container, error) {
	if !filepath.IsAbs(root) || id == "" || filepath.Base(id) != id || id == "." || id == ".." {
		return nil, errors.New("need an absolute root and an id without slashes")
	}
	c := &Container{root: root, id: id}
	r, err := readRecord(c.StateDir())
	if errors.Is(err, ErrNotExist) {
		// Left by a creator that died within its first microseconds; it
		// would be in the way of the next container of that name.
		_ = os.Remove(filepath.Join(c.StateDir(), recordFile+".new"))
		_ = os.Remove(c.StateDir()) // only if it is empty
	}
	if err != nil {
		return nil, err
	}
	c.bundle, c.target, c.streams = r.Bundle, r.Process, r.Streams
	c.privatePID = r.Config.Namespaces.IsPrivate(configs.NEWPID)

	v, err := c.view()
	if errors.Is(err, ErrNotExist) {
		// Our record, but no state of libcontainer's: Create never got there.
		c.init = deadProcess()
		c.cg, err = manager.New(r.Config.Cgroups)
		return c, err
	}
	if err != nil {
		return nil, err
	}
	state, err := v.State()
	if err != nil {
		return nil, err
	}
	if c.cg, err = manager.NewWithPaths(state.Config.Cgroups, state.CgroupPaths); err != nil {
		return nil, err
	}
	c.init, err = findInit(state)
	return c, err
}

// findInit watches the init process if it is still the same one.
func findInit(state *libcontainer.State) (*Process, error) {
	pid := state.InitProcessPid
	if pid <= 0 {
		return deadProcess(), nil
	}
	// The pidfd first: from then on the start time is that of the process it
	// refers to, or the process is dead.
	p, err := newProcessOf(pid)
	if errors.Is(err, unix.ESRCH) {
		return deadProcess(), nil
	}
	if err != nil {
		return nil, err
	}
	if st, err := system.Stat(pid); err != nil || st.StartTime != state.InitProcessStartTime {
		p.pidfd.Close() // the number belongs to somebody else now
		return deadProcess(), nil
	}
	// Not a child of ours: there is nothing to wait for after its death.
	go p.reap(func() int { return unknownExit })
	return p, nil
}

// removeHalfMade is Destroy for a container without libcontainer's state. Its
// init cannot be alive: it waits for words of its creator's and ends with it.
func (c *Container) removeHalfMade() error {
	r, err := readRecord(c.StateDir())
	if errors.Is(err, ErrNotExist) {
		return nil // nothing is left at all
	}
	if err != nil {
		return err
	}
	if err := c.cg.Destroy(); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	if m := intelrdt.NewManager(&r.Config, c.id, ""); m != nil {
		if err := m.Destroy(); err != nil {
			return fmt.Errorf("remove resctrl group: %w", err)
		}
	}
	if err := os.RemoveAll(c.StateDir()); err != nil {
		return err
	}
	if r.Config.Hooks == nil {
		return nil
	}
	children.enter()
	defer children.leave()
	bundle, annotations := utils.Annotations(r.Config.Labels)
	return r.Config.Hooks.Run(configs.Poststop, &specs.State{
		Version: specs.Version, ID: c.id, Status: specs.StateStopped, Bundle: bundle, Annotations: annotations,
	})
}
