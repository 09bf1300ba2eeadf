// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// Destroy kills what is left of the container, waits for its end for as long as
// ctx allows, removes the cgroup and the state directory and runs the poststop
// hooks. The state directory goes before the hooks run, as with runc: an error
// of a hook is reported, but the container is gone. After a success another call
// does nothing; after an error it tries again.
func (c *Container) Destroy(ctx context.Context) error {
	c.destroyMu.Lock()
	defer c.destroyMu.Unlock()
	if c.destroyed {
		return nil
	}
	if err := c.killAll(ctx); err != nil {
		return c.errorf("destroy", err)
	}
	v, err := c.view()
	switch {
	case errors.Is(err, ErrNotExist):
		err = c.removeHalfMade()
	case err == nil:
		err = destroyView(v)
	}
	if _, serr := os.Stat(c.StateDir()); errors.Is(serr, os.ErrNotExist) {
		c.destroyed = true
	}
	return c.errorf("destroy", errors.Join(err, c.init.Close()))
}

// destroyView removes the cgroup and the state directory and runs the poststop
// hooks, which are children of this process.
func destroyView(v *libcontainer.Container) error {
	children.enter()
	defer children.leave()
	return v.Destroy()
}

// killAll returns when the init is dead and the cgroup has no process left.
// Exec sessions die with the init's pid namespace; without one they, and
// whatever they left behind, are signalled until the cgroup is empty.
func (c *Container) killAll(ctx context.Context) error {
	if err := c.signal(unix.SIGKILL, false); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	if err := c.thaw(); err != nil {
		return err
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		pids, err := c.pids()
		if err != nil {
			return err
		}
		if len(pids) == 0 && c.init.exited() {
			return nil
		}
		// Those that outlive the first rounds may be forking faster than
		// they are listed: hold them still for the next ones.
		if err := c.killRound(pause >= 8*time.Millisecond); err != nil && !errors.Is(err, ErrNotRunning) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v do not die (traced, or in uninterruptible sleep?): %w", pids, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// killRound kills every process of the cgroup once.
func (c *Container) killRound(freeze bool) error {
	if c.CgroupV2() {
		// Kills the whole subtree, forks in flight included (Linux 5.14).
		err := os.WriteFile(filepath.Join(c.cg.Path(""), "cgroup.kill"), []byte("1"), 0)
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if freeze {
		// On failure it thaws by itself; the round is then like the others.
		_ = c.cg.Freeze(cgroups.Frozen)
		defer func() { _ = c.cg.Freeze(cgroups.Thawed) }()
	}
	return c.signalAll(unix.SIGKILL)
}
