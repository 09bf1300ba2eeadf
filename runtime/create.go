// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
)

// Create makes the container up to OCI's "created": namespaces, cgroup and
// mounts exist, the hooks prestart, createRuntime and createContainer have run,
// and the init process waits for Start. If it fails nothing is left: no
// process, cgroup, mount or state directory. ctx is looked at before the start
// and after it; it cannot interrupt a hook (the spec gives hooks their timeout).
//
// Errors: ErrExists; otherwise what libcontainer says, with the init's own words.
func Create(ctx context.Context, o CreateOptions) (*Container, error) {
	c, err := create(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", o.ID, err)
	}
	return c, nil
}

func create(ctx context.Context, o CreateOptions) (*Container, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	config, err := newConfig(o)
	if err != nil {
		return nil, err
	}
	proc, err := newInitProcess(o)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lc, err := libcontainer.Create(o.Root, o.ID, config)
	if errors.Is(err, libcontainer.ErrExist) || errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%w in %s", ErrExists, o.Root)
	}
	if err != nil {
		return nil, err
	}
	c, err := start(ctx, o, lc, config, proc)
	if err != nil {
		// As runc does, poststop hooks included: a createRuntime hook may
		// have run, and the network is taken down by poststop.
		return nil, errors.Join(err, destroyView(lc))
	}
	return c, nil
}

// start runs the init process up to the exec FIFO. What it made itself is gone
// when it fails; the state directory and the cgroup are the caller's to remove.
func start(ctx context.Context, o CreateOptions, lc *libcontainer.Container, config *configs.Config, proc *libcontainer.Process) (*Container, error) {
	c := &Container{
		id: o.ID, root: o.Root, bundle: o.Bundle,
		target:     copyProcess(o.Spec.Process),
		privatePID: config.Namespaces.IsPrivate(configs.NEWPID),
		streams:    streamsOf(o.Stdio),
	}
	if err := writeRecord(c.StateDir(), recordOf(o, config)); err != nil {
		return nil, err
	}
	var err error
	if c.init, err = launch(lc, proc, o.Stdio); err != nil {
		return nil, err
	}
	if err := c.finish(ctx, o, lc); err != nil {
		return nil, errors.Join(err, c.init.end())
	}
	return c, nil
}

// finish is what is left to do once the init waits at the exec FIFO.
func (c *Container) finish(ctx context.Context, o CreateOptions, lc *libcontainer.Container) error {
	state, err := lc.State()
	if err != nil {
		return err
	}
	if c.cg, err = manager.NewWithPaths(state.Config.Cgroups, state.CgroupPaths); err != nil {
		return fmt.Errorf("cgroup of the init process: %w", err)
	}
	if o.Frame != nil {
		if err := giveStdio(c.init.Pid(), &state.Config, int(c.target.User.UID)); err != nil {
			return err
		}
	}
	if o.PidFile != "" {
		if err := writePidFile(o.PidFile, c.init.Pid()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// writePidFile writes by rename: a reader sees no pid or all of it.
func writePidFile(path string, pid int) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("pid file: %w", err)
	}
	return nil
}
