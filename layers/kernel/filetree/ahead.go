// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The final pass mostly asks the kernel about files that have not changed, while
// the container stands still. Several threads ask ahead of the walk, which is
// one: items have an order.

// listing is what a directory held when it was looked at ahead.
type listing struct {
	names []string
	stats []unix.Statx_t // of the names
}

// Bounds of looking ahead: below the first a thread costs more than it saves,
// above the second the answers take too much memory.
const (
	aheadFrom = 256
	aheadTo   = 1 << 18
)

// lookAhead looks at all directories that are known from the pass before. One
// that cannot be looked at is left to the walk.
func (w *walk) lookAhead() {
	if !w.final || w.passes == 1 || w.o.Workers < 2 || w.count < aheadFrom || w.count > aheadTo {
		return
	}
	type known struct {
		n    *node
		path string
		got  *listing
	}
	var all []known
	var collect func(n *node, path string)
	collect = func(n *node, path string) {
		all = append(all, known{n: n, path: path})
		for name, kid := range n.kids {
			if kid.kids != nil {
				collect(kid, join(path, name))
			}
		}
	}
	collect(w.top, rootPath)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range w.o.Workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(all) && w.ctx.Err() == nil; i = next.Add(1) - 1 {
				all[i].got = w.list(all[i].path)
			}
		})
	}
	wg.Wait()
	w.ahead = make(map[*node]*listing, len(all))
	for _, k := range all {
		w.ahead[k.n] = k.got
	}
}

// list looks at one directory; nil if that fails.
func (w *walk) list(path string) *listing {
	fd, err := openBeneath(w.root, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME)
	if err != nil {
		return nil
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	slices.Sort(names)
	l := &listing{names: names, stats: make([]unix.Statx_t, len(names))}
	for i, name := range names {
		if statAt(fd, name, &l.stats[i]) != nil {
			return nil
		}
	}
	return l
}
