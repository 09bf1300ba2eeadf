// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
)

// place is the container's own cgroup in one hierarchy.
type place struct {
	dir string
	// controllers of version 1, sorted; v2: the unified hierarchy, which has none here.
	controllers []string
	v2          bool
	children    bool
	stat        unix.Stat_t
}

// String names the hierarchy in errors.
func (p *place) String() string { return hierarchy(p.controllers) }

func hierarchy(controllers []string) string {
	if len(controllers) == 0 {
		return "cgroup version 2"
	}
	return "the cgroup hierarchy of " + strings.Join(controllers, ",")
}

// places finds them among the container's directories by controller. Several
// controllers may be in one hierarchy.
func places(cgroups map[string]string) ([]*place, error) {
	type inode struct{ dev, ino uint64 }
	known := map[inode]*place{}
	var out []*place
	for _, controller := range slices.Sorted(maps.Keys(cgroups)) {
		p := &place{dir: cgroups[controller], v2: controller == ""}
		err := unix.Stat(p.dir, &p.stat)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the container's cgroup %s: %w", p.dir, err)
		}
		// A directory of cgroupfs has a link for each child.
		p.children = p.stat.Nlink > 2
		at := inode{p.stat.Dev, p.stat.Ino}
		if known[at] == nil {
			known[at] = p
			out = append(out, p)
		}
		if !p.v2 {
			known[at].controllers = append(known[at].controllers, controller)
		}
	}
	return out, nil
}

// root: the directory is a hierarchy's, and nobody's own.
func (p *place) root() bool {
	if p.v2 {
		return !p.has("cgroup.type")
	}
	return p.has("release_agent")
}

func (p *place) has(file string) bool {
	_, err := os.Stat(filepath.Join(p.dir, file))
	return !errors.Is(err, fs.ErrNotExist)
}

// Needed reports whether the specification lets the container write to cgroups, without
// which it has made none.
func Needed(files *target.Files) bool {
	return slices.ContainsFunc(files.Mounts, func(m target.SpecMount) bool {
		cgroups := m.Type == "cgroup" || m.Type == "cgroup2" ||
			m.Bind() && strings.HasPrefix(filepath.Clean(m.Source)+"/", "/sys/fs/cgroup/")
		return cgroups && !m.ReadOnly()
	})
}
