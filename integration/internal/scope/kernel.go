// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const cgroupRoot = "/sys/fs/cgroup"

// mounts lists the mount points that bear the scope's name, the innermost
// last, as the kernel lists them. See proc_pid_mountinfo(5), field 5.
func (s Scope) mounts() []string {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var found []string
	for line := range strings.Lines(string(info)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.Contains(fields[4], s.Name) {
			found = append(found, fields[4])
		}
	}
	return found
}

func (s Scope) unmount() error {
	var failed []error
	mounts := s.mounts()
	slices.Reverse(mounts)
	for _, mount := range mounts {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			failed = append(failed, fmt.Errorf("unmount %s: %w", mount, err))
		}
	}
	return errors.Join(failed...)
}

// cgroups lists the scope's cgroup directories of every hierarchy, parents
// before children, the empty one of the namespace left out: runtimes make it
// and nobody owns it.
func (s Scope) cgroups() []string {
	var found []string
	for _, dir := range s.allCgroups() {
		if filepath.Base(dir) != s.Name {
			found = append(found, dir)
		}
	}
	return found
}

func (s Scope) allCgroups() []string {
	var found []string
	_ = filepath.WalkDir(cgroupRoot, func(path string, entry fs.DirEntry, err error) error {
		// Directories vanish while others work: that is not our business.
		if err == nil && entry.IsDir() && strings.Contains(path, s.Name) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// thaw lets killed processes of a frozen container die (v1 needs it).
func (s Scope) thaw() {
	for _, dir := range s.allCgroups() {
		_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	}
}

func (s Scope) removeCgroups() error {
	var failed []error
	dirs := s.allCgroups()
	slices.Reverse(dirs)
	for _, dir := range dirs {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
