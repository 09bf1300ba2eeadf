// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// Signal sends sig to the init or, with all, to every process of the cgroup.
// SIGKILL ends the whole container in any case. A paused container is thawed for it
// when all have it: none of its processes runs again.
//
// Errors: ErrNotRunning if there was nobody to signal.
func (c *Container) Signal(sig os.Signal, all bool) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return c.errorf("signal", fmt.Errorf("%v is not a signal of this system", sig))
	}
	return c.errorf("signal", c.signal(s, all))
}

func (c *Container) signal(sig syscall.Signal, all bool) error {
	if sig == unix.SIGKILL {
		return c.kill(all)
	}
	if all {
		return c.signalAll(sig)
	}
	return c.init.Signal(sig)
}

// kill ends every process by a signal of its own, also where the kernel would end them
// with the init: that takes a moment, in which those that were frozen would run.
func (c *Container) kill(all bool) error {
	one := !all && c.privatePID
	if one {
		// Without its init there is nobody to kill, whoever is in the cgroup.
		if err := c.init.Signal(syscall.Signal(0)); err != nil {
			return err
		}
	}
	err := c.signalAll(unix.SIGKILL)
	if err != nil && one {
		err = c.init.Signal(unix.SIGKILL) // whoever cannot be found in its cgroup
	}
	if err == nil {
		// On v1 a frozen task does not even die. Thawing what is not frozen
		// does nothing.
		err = c.thaw()
	}
	return err
}

// signalAll signals every process that is in the cgroup. Processes it misses
// because they are forked meanwhile are the caller's to ask for again.
func (c *Container) signalAll(sig syscall.Signal) error {
	pids, err := c.pids()
	if err != nil {
		return err
	}
	targets := openPidfds(pids)
	defer closeAll(targets)
	// Once more: a pid that is still listed, after its pidfd was opened, is in
	// the container, whoever had the number before.
	if pids, err = c.pids(); err != nil {
		return err
	}
	var errs []error
	sent := 0
	for pid, fd := range targets {
		if !slices.Contains(pids, pid) {
			continue
		}
		switch err := unix.PidfdSendSignal(fd, sig, nil, 0); {
		case err == nil:
			sent++
		case !errors.Is(err, unix.ESRCH):
			errs = append(errs, fmt.Errorf("signal %d to pid %d: %w", sig, pid, err))
		}
	}
	if sent == 0 && len(errs) == 0 {
		return ErrNotRunning
	}
	return errors.Join(errs...)
}

// openPidfds leaves out the processes that are gone.
func openPidfds(pids []int) map[int]int {
	fds := make(map[int]int, len(pids))
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds[pid] = fd
		}
	}
	return fds
}

func closeAll(fds map[int]int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// thaw undoes a freeze, for those who are to die: also that of cgroups which the
// container has made below its own and frozen, where a task of v1 does not die
// either. A cgroup that is gone is as good as thawed.
func (c *Container) thaw() error {
	frozen, err := c.frozen()
	if err != nil {
		return err
	}
	if frozen {
		if err := c.cg.Freeze(cgroups.Thawed); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("thaw: %w", err)
		}
	}
	return c.thawBelow()
}

// thawBelow thaws what is frozen below the container's cgroup on v1. On v2 a
// frozen task dies.
func (c *Container) thawBelow() error {
	dir := c.cg.Path("freezer")
	if c.CgroupV2() || dir == "" {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != dir {
			err = os.WriteFile(filepath.Join(path, "freezer.state"), []byte(cgroups.Thawed), 0)
		}
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		return err
	})
}
