// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// With a base, the other side has a copy of it, and the first pass sends what
// the tree has changed: files are compared as they are, byte by byte, since a
// copy has time stamps of its own that say when it was copied.

// comparing: this pass and directory have something to be compared with.
func (w *walk) comparing(parent *node) bool {
	return w.o.Compare && w.passes == 1 && parent.base
}

// baseDirectory finds out whether the base has a directory at a path, and
// whether it says the same of itself.
func (w *walk) baseDirectory(path string, entry *state.TreeEntry) (there, same bool, err error) {
	fd, err := openBeneath(w.o.Base, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if gone(err) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := statAt(fd, "", &st); err != nil {
		return false, false, err
	}
	base, err := w.entryOf(procFD(fd)+"/.", path, &st)
	if err != nil {
		return true, false, ignoreRefusal(err)
	}
	same, err = w.equal(base, entry)
	return true, same, err
}

// ignoreRefusal: what of the base could not be sent is different.
func ignoreRefusal(err error) error {
	var r *Refusal
	if errors.As(err, &r) {
		return nil
	}
	return err
}

func (w *walk) equal(a, b *state.TreeEntry) (bool, error) {
	one, err1 := w.sumOf(a)
	two, err2 := w.sumOf(b)
	return one == two, errors.Join(err1, err2)
}

// missing notes the names that the base has in a directory and the tree has
// not. names are sorted.
func (w *walk) missing(path string, names []string, n *node) error {
	if !w.comparing(n) {
		return nil
	}
	fd, err := openBeneath(w.o.Base, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	base, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list %s of the base: %w", path, err)
	}
	slices.Sort(base)
	for _, name := range base {
		if _, there := slices.BinarySearch(names, name); !there {
			w.removals = append(w.removals, removal{join(path, name), n, name})
		}
	}
	return nil
}

// baseFile compares a file that is seen for the first time with the base's. If
// they are the same, the node is as if it had been sent.
func (w *walk) baseFile(dir int, name, path string, st *unix.Statx_t, n *node) (same bool, err error) {
	parent, last := split(path)
	base, err := openBeneath(w.o.Base, parent, unix.O_PATH|unix.O_DIRECTORY)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(base)
	var theirs unix.Statx_t
	if err := statAt(base, last, &theirs); gone(err) || err == nil && fileType(&theirs) != fileType(st) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	n.baseIno = theirs.Ino
	stamp, open := stampOf(st), !settled(st)
	one, err1 := w.entryOf(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name), path, st)
	two, err2 := w.entryOf(fmt.Sprintf("/proc/self/fd/%d/%s", base, last), path, &theirs)
	if err := errors.Join(err1, err2); err != nil {
		if gone(err) {
			return false, nil
		}
		return false, ignoreRefusal(err)
	}
	if same, err := w.equal(one, two); err != nil || !same {
		return false, err
	}
	if fileType(st) == unix.S_IFREG {
		if w.o.Mapped != nil && w.o.Mapped(st.Ino) {
			open = true
		}
		if same, err := w.sameContent(dir, name, base, last, path, st, &theirs, n); err != nil || !same {
			n.pieces = nil
			return false, err
		}
	}
	n.stamp, n.open, n.pass = stamp, open, w.passes
	n.sum, err = w.sumOf(one)
	return true, err
}

// sameContent compares two regular files and remembers the pieces.
func (w *walk) sameContent(dir int, name string, base int, last, path string, st, theirs *unix.Statx_t, n *node) (bool, error) {
	a, err := openRegular(dir, name, path, st)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := openRegular(base, last, path, theirs)
	if err != nil {
		return false, err
	}
	defer b.Close()
	one, two := make([]byte, pieceBytes), make([]byte, pieceBytes)
	for at := int64(0); at < int64(st.Size); at += pieceBytes {
		if err := w.ctx.Err(); err != nil {
			return false, err
		}
		i, err1 := a.ReadAt(one, at)
		j, err2 := b.ReadAt(two, at)
		for _, err := range []error{err1, err2} {
			if err != nil && !errors.Is(err, io.EOF) {
				return false, err
			}
		}
		if !bytes.Equal(one[:i], two[:j]) {
			return false, nil
		}
		n.pieces = append(n.pieces, w.sum(one[:i]))
	}
	return true, nil
}

// linkedInBase: the base has both names of a file as one file, too.
func (w *walk) linkedInBase(path string, parent, n *node) bool {
	if !w.comparing(parent) || n.baseIno == 0 {
		return false
	}
	fd, err := openBeneath(w.o.Base, path, unix.O_PATH)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	return statAt(fd, "", &st) == nil && st.Ino == n.baseIno
}
