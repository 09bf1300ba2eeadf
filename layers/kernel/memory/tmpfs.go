// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// onOwnTmpfs refuses a mapping of a file on a memory file system that only the
// container has: a new container's is empty when the mappings are made, so the
// restore would fail, or find another file. A file that is gone meanwhile is no
// finding.
func onOwnTmpfs(t procfs.Task, m *procfs.SmapsMapping) error {
	name := t.Path(fmt.Sprintf("map_files/%x-%x", m.Start, m.End))
	var on unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Statfs(name, &on), unix.Stat(name, &st)); err != nil {
		if errors.Is(err, unix.ENOENT) || procfs.IsGone(err) {
			return nil
		}
		return fmt.Errorf("look at %s, mapped at %#x: %w", m.Path, m.Start, err)
	}
	if on.Type != unix.TMPFS_MAGIC && on.Type != unix.RAMFS_MAGIC {
		return nil
	}
	own, err := target.OwnTmpfs(t, st.Dev)
	if err != nil || own == nil {
		return err
	}
	return &refusal{
		fmt.Sprintf("mapping %#x-%#x of %s", m.Start, m.End, m.Path),
		"the file is on a tmpfs of the container (a named semaphore or shared memory is one), which is not carried by this version", "mount a volume there",
	}
}
