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

// mappings are the files that the container's processes map for writing, by the
// paths that the kernel shows. A mapping that may not be written to at the moment
// leaves a stamp when it is (do_wp_page of mm/memory.c).
type mappings struct {
	source *target.Source
	when   time.Time
	paths  []string
	err    error
}

// look lists them, if that was not done just now.
func (m *mappings) look() {
	if time.Since(m.when) <= mappedAge {
		return
	}
	m.when, m.paths, m.err = time.Now(), nil, nil
	pids, err := m.source.Pids()
	if err != nil {
		m.err = err
		return
	}
	seen := map[string]bool{}
	for _, pid := range pids {
		maps, err := procfs.Consistent(procfs.Host().Process(pid).Maps)
		if err != nil && !procfs.IsGone(err) {
			m.err = err
			return
		}
		for i := range maps {
			p := maps[i].Path
			if maps[i].Shared && maps[i].Prot&unix.PROT_WRITE != 0 && !seen[p] {
				seen[p] = true
				m.paths = append(m.paths, p)
			}
		}
	}
}

// mapped are those of one tree. They are known by their paths: an overlay shows
// numbers of its own. The file may have been renamed since it was mapped; the
// kernel shows its present name.
type mapped struct {
	all    *mappings
	root   int
	prefix string // of the tree's paths in the container, ends in a slash

	when time.Time
	inos map[uint64]bool
}

// has is a filetree.ExportOptions.Mapped. What cannot be read counts as mapped.
func (m *mapped) has(ino uint64) bool {
	m.all.look()
	if m.when != m.all.when {
		m.when, m.inos = m.all.when, map[uint64]bool{}
		for _, p := range m.all.paths {
			m.add(p)
		}
	}
	return m.all.err != nil || m.inos[ino]
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
