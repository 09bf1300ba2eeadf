// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

var errMissing = errors.New("the items change a file that is not there: they are incomplete, or not of this tree")

// directory makes a directory or keeps the one that is there. Its owner, mode
// and times are set at the end of the pass: a default access control list would
// be inherited by what is made in it until then.
func (im *Importer) directory(path string, e *state.TreeEntry) error {
	if len(im.directories) >= maxNodes {
		return fmt.Errorf("more than %d directories", maxNodes)
	}
	d := &directory{entry: e}
	im.directories = append(im.directories, d)
	if path == rootPath {
		return nil
	}
	dir, name, st, err := im.find(path)
	if err != nil {
		return err
	}
	if st != nil && fileType(st) == unix.S_IFDIR {
		err := unfreeze(dir, name, st)
		if err == nil && e.Fresh && e.Opaque {
			err = im.clear(path)
		}
		return err
	}
	if !e.Fresh {
		return errMissing
	}
	if err := im.replace(path, st); err != nil {
		return err
	}
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		return os.NewSyscallError("mkdir", err)
	}
	d.made = true
	return nil
}

// find is at, and what lookAt sees there.
func (im *Importer) find(path string) (dir int, name string, st *unix.Statx_t, err error) {
	if dir, name, err = im.at(path); err == nil {
		st, err = lookAt(dir, name)
	}
	return dir, name, st, err
}

// lookAt is statx(2); nil if nothing is there.
func lookAt(dir int, name string) (*unix.Statx_t, error) {
	st := &unix.Statx_t{}
	err := statAt(dir, name, st)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return st, err
}

// replace removes what is at a path, if anything is.
func (im *Importer) replace(path string, st *unix.Statx_t) error {
	if st == nil {
		return nil
	}
	if im.protected(path) {
		return errors.New("another kind of file is needed where something is mounted")
	}
	return im.remove(path)
}

// regular opens the file whose content follows.
func (im *Importer) regular(path string, e *state.TreeEntry) error {
	const flags = unix.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	dir, name, st, err := im.find(path)
	if err != nil {
		return err
	}
	there := st != nil && fileType(st) == unix.S_IFREG
	keep := there && (!e.Fresh || im.protected(path))
	if !keep && !e.Fresh {
		return errMissing
	}
	if keep {
		err = unfreeze(dir, name, st)
	} else {
		err = im.replace(path, st)
	}
	if err != nil {
		return err
	}
	var fd int
	if keep {
		fd, err = unix.Openat(dir, name, flags, 0)
	} else {
		fd, err = unix.Openat(dir, name, flags|unix.O_CREAT|unix.O_EXCL, 0o600)
	}
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	im.current = &current{os.NewFile(uintptr(fd), path), e, !keep}
	if err := isRegular(fd); err != nil {
		return err
	}
	if keep && e.Fresh {
		if err := unix.Ftruncate(fd, 0); err != nil {
			return os.NewSyscallError("ftruncate", err)
		}
	}
	if err := unix.Ftruncate(fd, e.Size); err != nil {
		return fmt.Errorf("make a file of %d bytes: %w", e.Size, os.NewSyscallError("ftruncate", err))
	}
	return nil
}

// isRegular makes sure that it was not replaced in between.
func isRegular(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errMissing
	}
	return nil
}

// data writes a piece of the current file.
func (im *Importer) data(d *state.TreeData) error {
	c := im.current
	if c == nil {
		return errors.New("content of no file")
	}
	if n := int64(len(d.Data)); n == 0 || d.Offset < 0 || n > c.entry.Size || d.Offset > c.entry.Size-n {
		return fmt.Errorf("%s: %d bytes at %d of a file of %d", c.entry.Path, n, d.Offset, c.entry.Size)
	}
	if im.p.Write != nil {
		return explain(string(c.entry.Path), im.p.Write.WriteAt(c.file, d.Data, d.Offset))
	}
	_, err := c.file.WriteAt(d.Data, d.Offset)
	return explain(string(c.entry.Path), err)
}

// hole takes the storage of a range away.
func (im *Importer) hole(h *state.TreeHole) error {
	c := im.current
	if c == nil {
		return errors.New("a hole of no file")
	}
	if h.Length <= 0 || h.Offset < 0 || h.Length > c.entry.Size || h.Offset > c.entry.Size-h.Length {
		return fmt.Errorf("%s: a hole of %d bytes at %d of a file of %d", c.entry.Path, h.Length, h.Offset, c.entry.Size)
	}
	if w, ok := im.p.Write.(Holer); ok {
		return explain(string(c.entry.Path), w.Hole(c.file, h.Offset, h.Length))
	}
	err := unix.Fallocate(int(c.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, h.Offset, h.Length)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return im.zeros(h)
	}
	return explain(string(c.entry.Path), os.NewSyscallError("fallocate", err))
}

// zeros is a hole where the file system has none.
func (im *Importer) zeros(h *state.TreeHole) error {
	for done := int64(0); done < h.Length; done += int64(len(zeros)) {
		b := zeros[:min(int64(len(zeros)), h.Length-done)]
		if err := im.data(&state.TreeData{Offset: h.Offset + done, Data: b}); err != nil {
			return err
		}
	}
	return nil
}

// finish closes the current file and gives it what comes behind its content.
func (im *Importer) finish() error {
	c := im.current
	if c == nil {
		return nil
	}
	im.current = nil
	defer c.file.Close()
	if im.p.Write != nil {
		if err := im.p.Write.Close(c.file); err != nil {
			return err
		}
	}
	return explain(string(c.entry.Path), im.attributes(int(c.file.Fd()), c.entry, c.made))
}

// special makes what has no content.
func (im *Importer) special(path string, e *state.TreeEntry) error {
	dir, name, st, err := im.find(path)
	if err != nil {
		return err
	}
	made := !same(dir, name, st, e)
	if made {
		if !e.Fresh {
			return errMissing
		}
		if err := im.replace(path, st); err != nil {
			return err
		}
		if err := im.node(dir, name, e); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	return im.attributes(fd, e, made)
}

// same: what is there is what the entry describes, so that it is kept.
func same(dir int, name string, st *unix.Statx_t, e *state.TreeEntry) bool {
	if st == nil || fileType(st) != e.Mode&unix.S_IFMT {
		return false
	}
	switch fileType(st) {
	case unix.S_IFCHR, unix.S_IFBLK:
		return unix.Mkdev(st.Rdev_major, st.Rdev_minor) == e.Device
	case unix.S_IFLNK:
		target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name))
		return err == nil && target == string(e.Target)
	}
	return true
}

// node makes a file of a type without content.
func (im *Importer) node(dir int, name string, e *state.TreeEntry) error {
	mode := e.Mode & unix.S_IFMT
	switch mode {
	case unix.S_IFLNK:
		if len(e.Target) == 0 || len(e.Target) > maxPath {
			return fmt.Errorf("a symbolic link of %d bytes", len(e.Target))
		}
		return os.NewSyscallError("symlink", unix.Symlinkat(string(e.Target), dir, name))
	case unix.S_IFIFO, unix.S_IFSOCK:
		return os.NewSyscallError("mknod", unix.Mknodat(dir, name, mode|0o600, 0))
	case unix.S_IFCHR, unix.S_IFBLK:
		if im.p.Device == nil || !im.p.Device(e.Mode, e.Device) {
			return fmt.Errorf("device %d:%d: the container's spec does not let it make such a node", unix.Major(e.Device), unix.Minor(e.Device))
		}
		return os.NewSyscallError("mknod", unix.Mknodat(dir, name, mode|0o600, int(e.Device)))
	}
	return fmt.Errorf("file type %#o", mode)
}

// link gives a file another name.
func (im *Importer) link(m *state.TreeLink) error {
	path, err := checkPath(m.Path)
	if err != nil {
		return err
	}
	to, err := checkPath(m.To)
	if err != nil {
		return err
	}
	if path == rootPath || to == rootPath || path == to {
		return fmt.Errorf("%w: a link from %q to %q", errPath, path, to)
	}
	delete(im.strange, path)
	return explain(path, im.linkTo(path, to))
}

func (im *Importer) linkTo(path, to string) error {
	dir, name := split(to)
	from, err := openBeneath(im.root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	parent, last, st, err := im.find(path)
	if err != nil {
		return err
	}
	if err := im.replace(path, st); err != nil {
		return err
	}
	return os.NewSyscallError("link", unix.Linkat(from, name, parent, last, 0))
}
