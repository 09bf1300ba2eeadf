// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// Importer makes a tree of items. They are untrusted. It is used by one
// goroutine at a time.
type Importer struct {
	root int
	p    Policy

	// parent is the directory that was opened last: items come directory by
	// directory.
	parent     int
	parentPath string
	// current is the regular file that content belongs to.
	current *current
	// directories of the pass, whose times are set at its end, by path in their
	// order.
	directories []*directory
	// strange are the paths that were there before and were not named yet.
	strange map[string]bool
	passes  uint32
	within  bool // a pass has begun
}

// current is a regular file under construction.
type current struct {
	file  *os.File
	entry *state.TreeEntry
	made  bool // it was not there before
}

// directory is one that was named in the pass.
type directory struct {
	entry *state.TreeEntry
	made  bool
}

// NewImporter is for the directory that is open as root, which stays the
// caller's and is not opened with O_PATH. With exact, what is in it now and is
// not named in the first pass is removed at the pass's end.
func NewImporter(root int, p Policy, exact bool) (*Importer, error) {
	im := &Importer{root: root, p: p, parent: -1}
	if !exact {
		return im, nil
	}
	im.strange = map[string]bool{}
	return im, im.list(rootPath)
}

// maxStrange bounds what may be there before an exact import.
const maxStrange = 1 << 20

// list notes what is below a directory.
func (im *Importer) list(path string) error {
	fd, err := openBeneath(im.root, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("list %s: %w", path, err)
	}
	for _, e := range entries {
		at := join(path, e.Name())
		if im.strange[at] = true; len(im.strange) > maxStrange {
			return fmt.Errorf("there are more than %d files already", maxStrange)
		}
		if !e.IsDir() {
			continue
		}
		if err := im.list(at); err != nil && !errors.Is(err, unix.EXDEV) {
			return err
		}
	}
	return nil
}

// Close ends the import. It says whether the tree is whole: whether the last
// pass came to its end.
func (im *Importer) Close() error {
	err := asRoot(im.p.IDs, im.finish)
	if err == nil && (im.within || im.passes == 0) {
		err = errors.New("the items end in the middle of a pass")
	}
	if im.parent >= 0 {
		unix.Close(im.parent)
		im.parent = -1
	}
	return err
}

// Apply makes the changes of items. An error leaves the tree half-made.
func (im *Importer) Apply(items ...*state.TreeItem) error {
	return asRoot(im.p.IDs, func() error {
		for _, item := range items {
			if err := im.apply(item); err != nil {
				return err
			}
		}
		return nil
	})
}

func (im *Importer) apply(item *state.TreeItem) error {
	im.within = true
	switch of := item.Of.(type) {
	case *state.TreeItem_Data:
		return im.data(of.Data)
	case *state.TreeItem_Hole:
		return im.hole(of.Hole)
	}
	if err := im.finish(); err != nil {
		return err
	}
	switch of := item.Of.(type) {
	case *state.TreeItem_Entry:
		return im.entry(of.Entry)
	case *state.TreeItem_Link:
		return im.link(of.Link)
	case *state.TreeItem_Removal:
		return im.removal(of.Removal)
	case *state.TreeItem_End:
		return im.end(of.End)
	}
	return errors.New("an item of no known kind")
}

// at opens the directory of a path and returns it with the last component. The
// directory stays the importer's.
func (im *Importer) at(path string) (dir int, name string, err error) {
	parent, name := split(path)
	if im.parent >= 0 && im.parentPath == parent {
		return im.parent, name, nil
	}
	fd, err := openBeneath(im.root, parent, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, "", err
	}
	if im.parent >= 0 {
		unix.Close(im.parent)
	}
	im.parent, im.parentPath = fd, parent
	return fd, name, nil
}

// moved forgets the open directory: it may not be where it was.
func (im *Importer) moved() { im.parentPath = "\x00" }

// entry makes or changes a file.
func (im *Importer) entry(e *state.TreeEntry) error {
	path, err := checkPath(e.Path)
	if err != nil {
		return err
	}
	if err := checkEntry(e); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	delete(im.strange, path)
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = im.directory(path, e)
	case unix.S_IFREG:
		err = im.regular(path, e)
	default:
		err = im.special(path, e)
	}
	return explain(path, err)
}

// explain adds what to do.
func explain(path string, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, unix.ENOSPC):
		err = fmt.Errorf("%w: the file system is full: it has room for less than the container had (is the mount's size in the container's spec smaller here?)", err)
	case errors.Is(err, unix.EDQUOT):
		err = fmt.Errorf("%w: the quota of the file's owner on this host is used up", err)
	case errors.Is(err, unix.EROFS):
		err = fmt.Errorf("%w: the container's spec mounts it read-only here", err)
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
		err = fmt.Errorf("%w: a mount or a symbolic link is on the way, which no path of an image leads through", err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// checkEntry refuses what no exporter sends.
func checkEntry(e *state.TreeEntry) error {
	const bits = unix.S_IFMT | 0o7777
	size := 0
	for _, a := range e.Attribute {
		size += len(a.Name) + 1
		if len(a.Value) > maxAttributes || fateOf(string(a.Name)) != fateCarried {
			return fmt.Errorf("extended attribute %.100q with %d bytes", a.Name, len(a.Value))
		}
	}
	switch {
	case e.Mode&^bits != 0:
		return fmt.Errorf("mode %#o", e.Mode)
	case size > maxAttributes:
		return fmt.Errorf("%d extended attributes", len(e.Attribute))
	case e.Size < 0, e.Size != 0 && e.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("size %d", e.Size)
	case e.Flags&^carriedFlags != 0:
		return fmt.Errorf("flags %#x", e.Flags)
	case e.Atime == nil || e.Mtime == nil || e.Atime.Nanoseconds >= 1e9 || e.Mtime.Nanoseconds >= 1e9:
		return errors.New("no valid times")
	}
	return nil
}

// protected: something is mounted on the path or below it.
func (im *Importer) protected(path string) bool {
	return slices.ContainsFunc(im.p.Protected, func(p string) bool {
		return p == path || len(p) > len(path) && p[:len(path)] == path && p[len(path)] == '/'
	})
}

// end finishes a pass.
func (im *Importer) end(m *state.TreePassEnd) error {
	im.passes++
	im.within = false
	if m.Pass != im.passes {
		return fmt.Errorf("pass %d ends where pass %d was expected", m.Pass, im.passes)
	}
	if err := im.removeStrange(); err != nil {
		return err
	}
	// The deepest first: what is set of a directory must not be changed by what
	// is done in it.
	for _, d := range slices.Backward(im.directories) {
		if err := im.settle(d); err != nil {
			return explain(string(d.entry.Path), err)
		}
	}
	im.directories = nil
	return nil
}

// removeStrange removes what the first pass did not name.
func (im *Importer) removeStrange() error {
	paths := make([]string, 0, len(im.strange))
	for path := range im.strange {
		paths = append(paths, path)
	}
	im.strange = nil
	slices.Sort(paths)
	for _, path := range paths {
		if im.protected(path) {
			continue
		}
		if err := im.remove(path); err != nil {
			return explain(path, err)
		}
	}
	return nil
}

// Protect adds a path on which something is mounted.
func (im *Importer) Protect(path string) { im.p.Protected = append(im.p.Protected, path) }
