// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// file sends what is no directory: its name, if that is new, and itself, if it
// has changed.
func (w *walk) file(dir int, name, path string, parent *node, st *unix.Statx_t) error {
	w.stats.Files++
	if w.o.Keep != nil && fileType(st) == unix.S_IFREG && !w.o.Keep(path, st) {
		w.vanished(path, name, parent)
		return nil
	}
	n := w.inodes[st.Ino]
	if n != nil && n.mode != fileType(st) || n != nil && len(n.paths) == 0 {
		n = nil
	}
	is := uint64(0)
	if fileType(st) != unix.S_IFREG && (n == nil || n.stamp != stampOf(st)) {
		is = w.identity(dir, name, st)
		if n != nil && n.is != is {
			n = nil // another file with the number of one that is gone
		}
	}
	if n == nil {
		n = &node{ino: st.Ino, mode: fileType(st), is: is}
		if err := w.add(parent, name, path, n); err != nil {
			return err
		}
		w.inodes[st.Ino] = n
		n.paths = []string{path}
		if w.comparing(parent) {
			if same, err := w.baseFile(dir, name, path, st, n); err != nil || same {
				return err
			}
		}
		return w.examine(dir, name, path, st, parent, n, true)
	}
	if parent.kids[name] != n {
		if old := parent.kids[name]; old != nil {
			w.forget(old, path)
		}
		parent.kids[name] = n
		if w.linkedInBase(path, parent, n) {
			n.paths = append(n.paths, path)
			return nil
		}
		link := &state.TreeLink{Path: []byte(path), To: []byte(n.paths[0])}
		if err := w.send(&state.TreeItem{Of: &state.TreeItem_Link{Link: link}}); err != nil {
			return err
		}
		n.paths = append(n.paths, path)
	}
	if n.pass == w.passes || n.stamp == stampOf(st) && !n.open && !w.unstamped(st) {
		return nil
	}
	return w.examine(dir, name, path, st, parent, n, false)
}

// identity is node.is.
func (w *walk) identity(dir int, name string, st *unix.Statx_t) uint64 {
	switch fileType(st) {
	case unix.S_IFCHR, unix.S_IFBLK:
		return unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	case unix.S_IFLNK:
		to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name))
		if err == nil { // else it is gone, as will be seen
			return maphash.String(w.seed, to)
		}
	}
	return 0
}

// unstamped: the file may have been written to without a trace in its stamp.
func (w *walk) unstamped(st *unix.Statx_t) bool {
	if fileType(st) != unix.S_IFREG {
		return false
	}
	return w.o.Unstamped || w.o.Mapped != nil && w.o.Mapped(st.Ino)
}

// unsteady is how often the final pass reads a file that changes under it.
const unsteady = 5

// examine compares a file with what the other side has and sends the
// difference.
func (w *walk) examine(dir int, name, path string, st *unix.Statx_t, parent, n *node, fresh bool) error {
	n.pass = w.passes
	for try := 1; ; try++ {
		steady, err := w.compare(dir, name, path, st, n, fresh)
		if gone(err) || errors.Is(err, errLeftOut) {
			n.open = true
			if fresh {
				w.lost(path, name, parent, n)
			}
			return nil
		}
		if err != nil {
			return err
		}
		n.open = n.open || !steady
		if steady || !w.final {
			return nil
		}
		if try == unsteady {
			return fmt.Errorf("%s changes while the container is stopped: somebody outside of it writes to it", path)
		}
		if err := statAt(dir, name, st); err != nil {
			return err
		}
	}
}

// errLeftOut: the file was refused, and the pass goes on.
var errLeftOut = errors.New("left out")

// lost takes back a name that nothing, or not all, was sent of.
func (w *walk) lost(path, name string, parent, n *node) {
	w.forget(n, path)
	delete(parent.kids, name)
	w.removals = append(w.removals, removal{path, parent, name})
}

// compare looks at a file once. steady: it did not change meanwhile.
func (w *walk) compare(dir int, name, path string, st *unix.Statx_t, n *node, fresh bool) (steady bool, err error) {
	n.stamp, n.open = stampOf(st), !settled(st)
	var f *os.File
	if fileType(st) == unix.S_IFREG {
		if w.o.Mapped != nil && w.o.Mapped(st.Ino) {
			n.open = true
		}
		if f, err = openRegular(dir, name, path, st); err != nil {
			return false, err
		}
		defer f.Close()
	}
	entry, err := w.describe(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name), path, st)
	if err != nil {
		return false, err
	}
	entry.Fresh = fresh
	if f == nil {
		return true, w.sendEntry(entry, n)
	}
	if err := w.content(f, entry, n, fresh); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	var after unix.Statx_t
	if err := statAt(int(f.Fd()), "", &after); err != nil {
		return false, err
	}
	return stampOf(&after) == n.stamp, nil
}

var errReplaced = &os.PathError{Op: "open", Path: "file", Err: unix.ENOENT}

// openRegular opens the file that st is about, without touching its atime where
// that is possible.
func openRegular(dir int, name, path string, st *unix.Statx_t) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Openat(dir, name, flags, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var now unix.Statx_t
	if err := statAt(fd, "", &now); err != nil {
		f.Close()
		return nil, err
	}
	if now.Ino != st.Ino || fileType(&now) != unix.S_IFREG || now.Mnt_id != st.Mnt_id {
		f.Close()
		return nil, errReplaced
	}
	return f, nil
}

// sendEntry sends an entry that differs from the one that was sent before.
func (w *walk) sendEntry(entry *state.TreeEntry, n *node) error {
	sum, err := w.sumOf(entry)
	if err != nil {
		return err
	}
	if !entry.Fresh && sum == n.sum {
		w.sentLast = nil
		return nil
	}
	n.sum, w.sentLast = sum, n
	return w.send(&state.TreeItem{Of: &state.TreeItem_Entry{Entry: entry}})
}
