// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC

// gone: the file was removed, or is something else by now. The pass that comes
// next sees to it.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE)
}

// directory sends a directory, which it closes, and what is in it.
func (w *walk) directory(dir *os.File, path string, st *unix.Statx_t, n *node, fresh bool) error {
	defer dir.Close()
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if err := w.describeDirectory(dir, path, st, n, fresh); err != nil {
		return err
	}
	ahead := w.ahead[n]
	var names []string
	if ahead != nil {
		names = ahead.names
	} else {
		var err error
		if names, err = dir.Readdirnames(-1); err != nil {
			return fmt.Errorf("list %s: %w", path, err)
		}
		slices.Sort(names)
	}
	var own unix.Statx_t
	for i, name := range names {
		st := &own
		if ahead != nil {
			st = &ahead.stats[i]
		} else if err := statAt(int(dir.Fd()), name, st); gone(err) {
			w.vanished(join(path, name), name, n)
			continue
		} else if err != nil {
			return fmt.Errorf("%s: %w", join(path, name), err)
		}
		if err := w.entry(int(dir.Fd()), name, join(path, name), n, st); err != nil {
			return err
		}
	}
	if err := w.missing(path, names, n); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		if _, there := slices.BinarySearch(names, name); !there {
			w.removals = append(w.removals, removal{join(path, name), n, name})
		}
	}
	return nil
}

// describeDirectory sends the directory's own entry if it is new.
func (w *walk) describeDirectory(dir *os.File, path string, st *unix.Statx_t, n *node, fresh bool) error {
	w.stats.Files++
	first := n.pass == 0
	n.pass = w.passes
	if !first && !n.open && n.stamp == stampOf(st) {
		return nil
	}
	changed := first || n.stamp != stampOf(st)
	n.stamp, n.open = stampOf(st), !settled(st)
	if w.o.Look && path == rootPath {
		return nil
	}
	entry, err := w.describe(procFD(int(dir.Fd()))+"/.", path, st)
	if errors.Is(err, errLeftOut) {
		return nil
	}
	if err != nil {
		return err
	}
	if first && n.base {
		var same bool
		if n.base, same, err = w.baseDirectory(path, entry); err != nil {
			return err
		}
		if n.base {
			fresh = false // it is there
		}
		if same {
			n.sum, err = w.sumOf(entry)
			return err
		}
	}
	entry.Fresh = fresh
	// What an earlier pass made at the path is not what the directory has now.
	entry.Opaque = entry.Opaque || fresh && w.passes > 1
	if changed {
		// Its time may be what it was: an overlay that copies a file up hides that
		// from the directory. The other side will have to make the same.
		n.sum = 0
	}
	return w.sendEntry(entry, n)
}

// entry sends one name of a directory.
func (w *walk) entry(dir int, name, path string, parent *node, st *unix.Statx_t) error {
	if st.Mnt_id != w.mount {
		return nil // another tree
	}
	if len(path) > maxPath {
		w.vanished(path, name, parent)
		return w.refuse(path, fmt.Sprintf("its path has more than %d bytes", maxPath), "move it")
	}
	if w.o.Layer {
		white, err := isWhiteout(dir, name, st)
		if err != nil || white {
			return errors.Join(err, w.whiteout(path, name, parent, st))
		}
	}
	if fileType(st) == unix.S_IFDIR {
		return w.subdirectory(dir, name, path, parent, st)
	}
	return w.file(dir, name, path, parent, st)
}

// vanished notes that the other side has a name too much.
func (w *walk) vanished(path, name string, parent *node) {
	if parent.kids[name] != nil {
		w.removals = append(w.removals, removal{path, parent, name})
	}
}

// add puts a new node in the place of whatever had the name.
func (w *walk) add(parent *node, name, path string, n *node) error {
	if old := parent.kids[name]; old != nil && old != n {
		w.forget(old, path)
	}
	parent.kids[name] = n
	if w.count++; w.count > maxNodes {
		return fmt.Errorf("the tree has more than %d files", maxNodes)
	}
	return nil
}

func (w *walk) subdirectory(dir int, name, path string, parent *node, st *unix.Statx_t) error {
	fd, err := unix.Openat(dir, name, dirFlags, 0)
	if gone(err) {
		w.vanished(path, name, parent)
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	// The name may lead to another directory by now, or to a mount.
	err = statAt(fd, "", st)
	if err != nil || st.Mnt_id != w.mount {
		unix.Close(fd)
		return err
	}
	n := parent.kids[name]
	fresh := n == nil || n.kids == nil || n.ino != st.Ino
	if fresh {
		n = &node{ino: st.Ino, mode: unix.S_IFDIR, kids: map[string]*node{}, base: w.comparing(parent)}
		if err := w.add(parent, name, path, n); err != nil {
			unix.Close(fd)
			return err
		}
	}
	own := *st
	return w.directory(os.NewFile(uintptr(fd), path), path, &own, n, fresh)
}
