// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

func (im *Importer) removal(m *state.TreeRemoval) error {
	path, err := checkPath(m.Path)
	if err != nil {
		return err
	}
	if path == rootPath {
		return errors.New("the removal of the tree's root")
	}
	if im.protected(path) {
		return explain(path, errors.New("it was removed where something is mounted here"))
	}
	return explain(path, im.remove(path))
}

// remove removes a file or a directory with all that is in it. What is not
// there is no error.
func (im *Importer) remove(path string) error {
	dir, name, err := im.at(path)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return im.removeAt(dir, name)
}

func (im *Importer) removeAt(dir int, name string) error {
	st, err := lookAt(dir, name)
	if err != nil || st == nil {
		return err
	}
	if err := unfreeze(dir, name, st); err != nil {
		return err
	}
	if fileType(st) != unix.S_IFDIR {
		return ignoreGone(os.NewSyscallError("unlink", unix.Unlinkat(dir, name, 0)))
	}
	im.moved()
	if err := im.clearAt(dir, name, st.Mnt_id); err != nil {
		return err
	}
	return ignoreGone(os.NewSyscallError("rmdir", unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)))
}

// clear empties a directory.
func (im *Importer) clear(path string) error {
	if im.protected(path) {
		return errors.New("it hides what is below it, where something is mounted here")
	}
	dir, name, st, err := im.find(path)
	if err != nil || st == nil {
		return err
	}
	return im.clearAt(dir, name, st.Mnt_id)
}

func (im *Importer) clearAt(dir int, name string, mount uint64) error {
	fd, err := unix.Openat(dir, name, dirFlags, 0)
	if err != nil {
		return ignoreGone(os.NewSyscallError("open", err))
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Statx_t
	if err := statAt(fd, "", &st); err != nil {
		return err
	}
	if st.Mnt_id != mount {
		return &os.PathError{Op: "remove", Path: name, Err: unix.EXDEV}
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := im.removeAt(fd, n); err != nil {
			return err
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
