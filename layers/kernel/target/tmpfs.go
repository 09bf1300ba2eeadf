// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// OwnTmpfs returns the process's mount of the memory file system with device
// number dev (st_dev) if only the container has it: another container's is
// empty. nil for any other file system, and for one that the engine sees, too,
// which outlives the container.
func OwnTmpfs(t procfs.Task, dev uint64) (*procfs.Mount, error) {
	number := procfs.Dev{Major: unix.Major(dev), Minor: unix.Minor(dev)}
	on := func(t procfs.Task) (*procfs.Mount, error) {
		mounts, err := t.Mountinfo()
		if err != nil {
			return nil, fmt.Errorf("read the mounts of process %d: %w", t.Pid(), err)
		}
		for i := range mounts {
			if m := &mounts[i]; m.Dev == number && (m.FSType == "tmpfs" || m.FSType == "ramfs") {
				return m, nil
			}
		}
		return nil, nil
	}
	theirs, err := on(t)
	if err != nil || theirs == nil {
		return nil, err
	}
	ours, err := on(procfs.Host().Process(os.Getpid()))
	if err != nil || ours != nil {
		return nil, err
	}
	return theirs, nil
}
