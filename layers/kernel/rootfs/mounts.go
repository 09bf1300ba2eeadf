// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// memoryTypes are the file systems that keep files in memory: in huge pages the last.
var memoryTypes = []string{"tmpfs", "ramfs", hugeType}

// ownTmpfses are the mounts of memory file systems that only the container has,
// each of them once.
func ownTmpfses(mounts []procfs.Mount, host map[procfs.Dev]bool) []procfs.Mount {
	var out []procfs.Mount
	whole := map[procfs.Dev]bool{}
	for _, m := range mounts {
		whole[m.Dev] = whole[m.Dev] || m.Root == "/"
	}
	type part struct {
		dev  procfs.Dev
		root string
	}
	seen := map[part]bool{}
	for _, m := range mounts {
		memory := slices.Contains(memoryTypes, m.FSType)
		p := part{m.Dev, m.Root}
		// Of one that is mounted whole, the binds of its parts are the same files.
		if !memory || host[m.Dev] || seen[p] || hidden(mounts, m) || whole[m.Dev] && m.Root != "/" {
			continue
		}
		seen[p] = true
		out = append(out, m)
	}
	return out
}

// hidden reports whether a later mount covers m: its files can only be had by
// those who have them open.
func hidden(mounts []procfs.Mount, m procfs.Mount) bool {
	return slices.ContainsFunc(mounts, func(o procfs.Mount) bool { return o.Parent == m.ID && o.Target == m.Target })
}

// below lists what is mounted below a path of the container, relative to it.
func below(mounts []procfs.Mount, path string) []string {
	prefix := strings.TrimSuffix(path, "/") + "/"
	var out []string
	for _, m := range mounts {
		if rest, ok := strings.CutPrefix(m.Target, prefix); ok && rest != "" {
			out = append(out, rest)
		}
	}
	return out
}

// openTmpfs opens a mount that mountinfo showed, which stays the subsystem's. It
// is nil for one that is not there any more, and for one that is read-only and
// empty: with those, runtimes mask directories of /proc and /sys.
//
// What the pre-flight has opened is used again while the container is stopped. A
// file system that is open keeps its device number, so that no other can pass
// for it.
func (s *Subsystem) openTmpfs(m procfs.Mount) (*os.File, error) {
	if root := s.opened[m.ID]; root != nil && isMount(root, m) == nil {
		return root, nil
	}
	root, err := target.OpenMount(s.env.Source.Init, m.Target)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	there := isMount(root, m)
	empty := false
	if there == nil && slices.Contains(m.Options, "ro") {
		_, err := root.Readdirnames(1)
		empty = errors.Is(err, io.EOF)
		_, err = root.Seek(0, io.SeekStart)
		there = err
	}
	if there != nil || empty {
		root.Close()
		return nil, nil
	}
	if s.opened == nil {
		s.opened = map[int]*os.File{}
	}
	s.opened[m.ID] = root
	return root, nil
}

// closeOpened ends what openTmpfs began.
func (s *Subsystem) closeOpened() {
	for _, root := range s.opened {
		root.Close()
	}
	s.opened = nil
}

// isMount makes sure that a directory is on the file system that mountinfo
// showed: mounts come and go while the container runs.
func isMount(dir *os.File, m procfs.Mount) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: m.Target, Err: err}
	}
	if st.Dev != m.Dev.Stat() {
		return fmt.Errorf("%s: something else is mounted there by now", m.Target)
	}
	return nil
}
