// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/io-mig/mig/spec/image"
	"golang.org/x/sys/unix"
)

// ErrExists is returned where the directory holds an image, which is never overwritten.
var ErrExists = errors.New("the directory holds an image already")

const tempPrefix, tempSuffix = ".mig-", ".tmp"

// folder is an open directory: every file in it is reached through the
// descriptor, so that renaming a directory above redirects nothing.
type folder struct {
	*os.File
	path    string
	created bool
	// named: files get temporary names, for want of O_TMPFILE.
	named bool
}

// lockFolder opens the directory for one writer, making it if it is missing.
func lockFolder(path string) (_ *folder, err error) {
	created := false
	switch err := unix.Mkdir(path, 0o700); err {
	case nil:
		created = true
	case unix.EEXIST:
	default:
		return nil, &fs.PathError{Op: "create the image's directory", Path: path, Err: err}
	}
	d, err := openFolder(path)
	if err != nil {
		return nil, err
	}
	d.created = created
	defer func() {
		if err != nil {
			d.abandon()
		}
	}()
	if err := d.private(); err != nil {
		return nil, err
	}
	if err := d.lock(); err != nil {
		d.created = false // then it is not ours to remove
		return nil, err
	}
	return d, d.sweep()
}

// openFolder opens the directory itself, not what a link leads to.
func openFolder(path string) (*folder, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open the image's directory", Path: path, Err: err}
	}
	return &folder{File: os.NewFile(uintptr(fd), path), path: path}, nil
}

// lock keeps other writers out until the directory is closed.
func (d *folder) lock() error {
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w: another checkpoint may be writing there", d.path, err)
	}
	return nil
}

// private refuses a directory in which somebody else could rename or replace
// files, which would redirect or truncate what is written.
func (d *folder) private() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to uid %d: an image is written only into a directory of the user who writes it, uid %d", d.path, st.Uid, os.Geteuid())
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%s has mode %04o: others could replace the image's files; chmod go-w it, or name a new directory", d.path, st.Mode&0o7777)
	}
	return nil
}

// sweep removes what an interrupted writer left. The lock is held: nobody else
// is writing.
func (d *folder) sweep() error {
	names, err := d.Readdirnames(-1)
	if err != nil {
		return &fs.PathError{Op: "list", Path: d.path, Err: err}
	}
	var old []string
	for _, name := range names {
		switch {
		case name == image.ManifestName:
			return fmt.Errorf("%s: %w: name another directory, or remove the image", d.path, ErrExists)
		case name == image.StateName, strings.HasPrefix(name, "mig.pages-"),
			strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix):
			old = append(old, name)
		}
	}
	for _, name := range old {
		if err := d.remove(name); err != nil {
			return fmt.Errorf("remove the left-over of an interrupted checkpoint: %w", err)
		}
	}
	return nil
}

func (d *folder) remove(name string) error {
	if err := unix.Unlinkat(int(d.Fd()), name, 0); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "unlink", Path: d.path + "/" + name, Err: err}
	}
	return nil
}

// abandon closes the directory and removes it if this writer made it.
func (d *folder) abandon() {
	if d.created {
		// Fails where somebody put files into it, which is then theirs to keep.
		_ = unix.Rmdir(d.path)
	}
	_ = d.Close()
}

// openFile opens one of an image's files for reading. The directory may be
// hostile: links are not followed, and a FIFO or a device is refused instead
// of waited for.
func (d *folder) openFile(name string) (*os.File, int64, error) {
	path := d.path + "/" + name
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err == unix.ELOOP {
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: errors.New("is a symbolic link; an image has regular files only")}
	}
	if err != nil {
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("not a regular file; an image has regular files only")
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), st.Size, nil
}
