// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// output is a file that is written but not yet part of the directory.
type output struct {
	*os.File
	dir  *folder
	name string // once published
	temp string // empty: the file has no name at all
	// published: name is in the directory.
	published bool
}

// create makes an unnamed file, or one under a temporary name where the file
// system has no O_TMPFILE.
func (d *folder) create(name string) (*output, error) {
	o := &output{dir: d, name: name}
	fd, err := -1, error(unix.EOPNOTSUPP)
	if !d.named {
		fd, err = unix.Openat(int(d.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	}
	// EISDIR and ENOENT: a kernel that does not know the flag (open(2)).
	if err == unix.EOPNOTSUPP || err == unix.EISDIR || err == unix.ENOENT || err == unix.EINVAL {
		var unique [8]byte
		_, _ = rand.Read(unique[:])
		o.temp = tempPrefix + hex.EncodeToString(unique[:]) + tempSuffix
		fd, err = unix.Openat(int(d.Fd()), o.temp, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return nil, o.explain("create", 0, err)
	}
	o.File = os.NewFile(uintptr(fd), d.path+"/"+name)
	// A default ACL of the directory may have widened the mode.
	if err := o.Chmod(0o600); err != nil {
		o.discard()
		return nil, o.explain("chmod", 0, err)
	}
	return o, nil
}

// write writes all of b at offset.
func (o *output) write(b []byte, offset int64) error {
	if n, err := o.WriteAt(b, offset); err != nil {
		return o.explain("write", len(b)-n, err)
	}
	return nil
}

// publish gives the file its name; it fails if the name is taken.
func (o *output) publish() error {
	if o.published {
		return nil
	}
	dir := int(o.dir.Fd())
	var err error
	if o.temp != "" {
		err = unix.Renameat2(dir, o.temp, dir, o.name, unix.RENAME_NOREPLACE)
		if err == unix.EINVAL || err == unix.ENOSYS { // not on this file system; the lock keeps other writers away
			err = unix.Renameat(dir, o.temp, dir, o.name)
		}
	} else {
		// AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH, the other way /proc (open(2)).
		err = unix.Linkat(int(o.Fd()), "", dir, o.name, unix.AT_EMPTY_PATH)
		if err == unix.ENOENT || err == unix.EPERM {
			err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(o.Fd())), dir, o.name, unix.AT_SYMLINK_FOLLOW)
		}
	}
	if err != nil {
		return o.explain("name", 0, err)
	}
	o.published = true
	return nil
}

// discard removes the file, named or not.
func (o *output) discard() {
	switch {
	case o.published:
		_ = o.dir.remove(o.name)
	case o.temp != "":
		_ = o.dir.remove(o.temp)
	}
	_ = o.Close()
}

// FullError is a disk, quota or file size limit that a checkpoint ran into.
type FullError struct {
	// File is the path of the file that could not grow.
	File string
	// Needed bytes could not be written by the call that failed; Free were
	// available to it on the file system.
	Needed int
	Free   uint64
	Err    error
}

func (e *FullError) Error() string {
	return fmt.Sprintf("%s: %v: %d more bytes were needed here, the file system has %d free: free space, or name a directory on a larger file system",
		e.File, e.Err, e.Needed, e.Free)
}

func (e *FullError) Unwrap() error { return e.Err }

// explain names file, operation and, where there is no room, the remedy.
func (o *output) explain(op string, needed int, err error) error {
	path := o.dir.path + "/" + o.name
	for _, full := range []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG} {
		if errors.Is(err, full) {
			var st unix.Statfs_t
			_ = unix.Fstatfs(int(o.dir.Fd()), &st) // only for the message
			return &FullError{File: path, Needed: needed, Free: st.Bavail * uint64(st.Bsize), Err: full}
		}
	}
	var inner *fs.PathError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
