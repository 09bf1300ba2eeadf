// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// mappedAge is how old a look at the mappings may be. It is less than the time
// for which the package filetree does not trust a stamp, so that a mapping that
// was made since the look is noticed by that.
const mappedAge = time.Second

// mapped knows which files of a tree the container's processes map for writing.
//
// They are known by their paths: an overlay shows numbers of its own. The file
// may have been renamed since; the kernel shows the present name.
type mapped struct {
	source *target.Source
	root   int
	prefix string // of the tree's paths in the container, ends in a slash

	when time.Time
	inos map[uint64]bool
	err  error
}

// has is a filetree.ExportOptions.Mapped. What cannot be read counts as mapped.
func (m *mapped) has(ino uint64) bool {
	if time.Since(m.when) > mappedAge {
		m.look()
	}
	return m.err != nil || m.inos[ino]
}

func (m *mapped) look() {
	m.when, m.inos, m.err = time.Now(), map[uint64]bool{}, nil
	pids, err := m.source.Pids()
	if err != nil {
		m.err = err
		return
	}
	seen := map[string]bool{}
	for _, pid := range pids {
		maps, err := procfs.Host().Process(pid).Maps()
		if err != nil && !procfs.IsGone(err) {
			m.err = err
			return
		}
		for i := range maps {
			if !maps[i].Shared || seen[maps[i].Path] {
				continue
			}
			seen[maps[i].Path] = true
			m.add(maps[i].Path)
		}
	}
}

func (m *mapped) add(path string) {
	rest, ok := strings.CutPrefix(path, m.prefix)
	if !ok {
		return
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(m.root, rest, &how)
	if err != nil {
		return // it is in another tree
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil {
		m.inos[st.Ino] = true
	}
}
