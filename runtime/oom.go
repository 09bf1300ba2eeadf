// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// OOM sends when the container has run out of memory; events that come while
// the receiver is busy are merged into one. Only what happens after the call is
// reported: ask before Start. The channel is closed when ctx ends or the cgroup
// is gone. It is an error if the memory controller is not there.
func (c *Container) OOM(ctx context.Context) (<-chan struct{}, error) {
	next, source, err := c.oomSource()
	if err != nil {
		return nil, c.errorf("watch for OOM", err)
	}
	stop := context.AfterFunc(ctx, func() { source.Close() })
	ch := make(chan struct{}, 1)
	go func() {
		defer close(ch)
		defer source.Close()
		defer stop()
		for {
			happened, err := next()
			if happened {
				select {
				case ch <- struct{}{}:
				default: // one is waiting to be received already
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return ch, nil
}

// oomSource returns a function that waits for the next sign: true for an OOM,
// an error when there will be no more. Closing the file ends a wait.
func (c *Container) oomSource() (next func() (bool, error), source *os.File, err error) {
	if c.CgroupV2() {
		return oomV2(c.cg.Path(""))
	}
	dir := c.cg.Path("memory")
	if dir == "" {
		return nil, nil, errors.New("the memory cgroup controller is not mounted")
	}
	return oomV1(dir)
}

// KilledForMemory tells whether the kernel has killed a process of the container
// because its cgroup, or one above it, had no memory left: the counter oom_kill of
// memory.events (cgroup-v2.rst) or of memory.oom_control (cgroup-v1/memory.rst).
func (c *Container) KilledForMemory() bool {
	file := filepath.Join(c.cg.Path(""), "memory.events")
	if !c.CgroupV2() {
		file = filepath.Join(c.cg.Path("memory"), "memory.oom_control")
	}
	n, err := eventCount(file, "oom_kill")
	return err == nil && n > 0
}
