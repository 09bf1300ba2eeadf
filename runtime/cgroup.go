// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"maps"
	"os"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// CgroupPaths are absolute directories: one for each controller on v1 (the key
// is its name; a hybrid machine's unified hierarchy comes under "" as well), a
// single one under "" on v2. The map is the caller's.
func (c *Container) CgroupPaths() map[string]string { return maps.Clone(c.cg.GetPaths()) }

// CgroupV2 says whether this machine has the unified hierarchy on
// /sys/fs/cgroup. A hybrid machine counts as v1.
func (c *Container) CgroupV2() bool { return cgroups.IsCgroup2UnifiedMode() }

// Stats reads the cgroup's counters. For other forms of them see CgroupPaths.
func (c *Container) Stats() (*cgroups.Stats, error) {
	stats, err := c.cg.GetStats()
	return stats, c.errorf("stats", err)
}

// Pids lists the processes in the container's cgroup and its sub-cgroups, in
// this process's pid namespace. A container that is gone has none.
func (c *Container) Pids() ([]int, error) {
	pids, err := c.pids()
	return pids, c.errorf("pids", err)
}

func (c *Container) pids() ([]int, error) {
	pids, err := c.cg.GetAllPids()
	// ENODEV: removed between open and read.
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	return pids, err
}
