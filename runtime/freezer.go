// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

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
		err = c.settle()
	}
	if err == nil {
		err = c.cg.Freeze(cgroups.Frozen)
	}
	return c.errorf("pause", err)
}

// How long a freeze may take in all, and how long the kernel is left to it
// before it is asked anew.
const (
	freezePatience = 10 * time.Second
	freezeAttempt  = 250 * time.Millisecond
)

// settle freezes a v1 cgroup, as far as that is possible within freezePatience.
// libcontainer's own attempts are all over before a task that waits for a busy
// processor has come to the point where it freezes; behind this, its first one
// succeeds or says why not. A cgroup to which tasks are forked all the time may
// stay FREEZING and is thawed between the attempts.
func (c *Container) settle() error {
	dir := c.cg.Path("freezer")
	if c.CgroupV2() || dir == "" {
		return nil
	}
	path := filepath.Join(dir, "freezer.state")
	for end := time.Now().Add(freezePatience); time.Now().Before(end); {
		if err := os.WriteFile(path, []byte(cgroups.Frozen), 0); err != nil {
			return err
		}
		wait := 50 * time.Microsecond
		for again := time.Now().Add(freezeAttempt); time.Now().Before(again); wait = min(2*wait, 5*time.Millisecond) {
			state, err := os.ReadFile(path) // the kernel looks at the tasks at each read
			if err != nil || strings.TrimSpace(string(state)) == string(cgroups.Frozen) {
				return err
			}
			time.Sleep(wait)
		}
		if err := os.WriteFile(path, []byte(cgroups.Thawed), 0); err != nil {
			return err
		}
		time.Sleep(wait)
	}
	return nil
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
