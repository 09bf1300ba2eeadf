// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// Pause freezes the cgroup and returns when all tasks are frozen.
// Errors: ErrPaused if it is frozen already, ErrNotRunning.
func (c *Container) Pause() error {
	if c.init.exited() {
		return c.errorf("pause", ErrNotRunning)
	}
	frozen, err := c.frozen()
	if err == nil && frozen {
		err = ErrPaused
	}
	if err == nil {
		err = c.cg.Freeze(cgroups.Frozen)
	}
	return c.errorf("pause", err)
}

// Resume thaws the cgroup. Errors: ErrNotPaused, ErrNotRunning.
func (c *Container) Resume() error {
	if c.init.exited() {
		return c.errorf("resume", ErrNotRunning)
	}
	frozen, err := c.frozen()
	if err == nil && !frozen {
		err = ErrNotPaused
	}
	if err == nil {
		err = c.cg.Freeze(cgroups.Thawed)
	}
	return c.errorf("resume", err)
}

// frozen reads what was asked of this cgroup itself. libcontainer's reader is
// not used because it waits for a cgroup to get from FREEZING to FROZEN, which a
// task in uninterruptible sleep can hold up, and Status has a deadline. A cgroup
// that is gone is not frozen.
func (c *Container) frozen() (bool, error) {
	dir, file := c.cg.Path("freezer"), "freezer.self_freezing" // Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst
	if c.CgroupV2() {
		dir, file = c.cg.Path(""), "cgroup.freeze" // Documentation/admin-guide/cgroup-v2.rst
	}
	if dir == "" {
		return false, nil
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	return strings.TrimSpace(string(data)) == "1", err
}
