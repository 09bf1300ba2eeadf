// SPDX-License-Identifier: Apache-2.0

package filetree

import "slices"

// node is what the exporter remembers of a file between passes.
type node struct {
	ino  uint64
	mode uint32 // type bits of st_mode
	// stamp as it was before the file was read last.
	stamp stamp
	// is what cannot change of a file without content: a device's number, or a
	// sum of where a symbolic link leads.
	is uint64
	// open: the stamp does not prove that the file is what it was, see settled.
	open bool
	// sum of the entry that was sent, pieces of the content: see content.go.
	sum    uint64
	pieces []uint64
	// pass in which it was looked at last: a file with several names is
	// compared once.
	pass uint32

	// kids of a directory, by name; nil for anything else. A mount point is
	// none of them.
	kids map[string]*node
	// paths by which the other side has the file; nil for a directory.
	paths []string
	// base: the base has a directory there, too; baseIno is the inode of a file in
	// it that is the same. See base.go.
	base    bool
	baseIno uint64
	// whiteout: no file, but the mark of a removed one.
	whiteout bool
}

// forget notes that the other side is to lose what it has at path.
func (e *Exporter) forget(n *node, path string) {
	for name, kid := range n.kids {
		e.forget(kid, join(path, name))
	}
	if n.kids != nil || n.whiteout {
		e.count--
		return
	}
	n.paths = slices.DeleteFunc(n.paths, func(p string) bool { return p == path })
	if len(n.paths) == 0 {
		e.count--
		if e.inodes[n.ino] == n {
			delete(e.inodes, n.ino)
		}
	}
}
