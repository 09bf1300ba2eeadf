// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Lstat is lstat(2) as process pid would make it. Unlike a look below RootPath,
// it follows an absolute symbolic link on the way (/var/run to /run) inside of
// the process's root.
func Lstat(pid int, path string, st *unix.Stat_t) error {
	fd, err := openIn(pid, path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return nil
}

// OpenPath is openIn with O_PATH, without following a symbolic link at the end.
func OpenPath(pid int, path string) (int, error) {
	return openIn(pid, path, unix.O_PATH|unix.O_NOFOLLOW)
}

// OpenDirectory opens a directory as process pid would, to be read.
func OpenDirectory(pid int, path string) (int, error) {
	return openIn(pid, path, unix.O_RDONLY|unix.O_DIRECTORY)
}

// openIn opens a path as process pid would, inside of its root. The caller
// closes the descriptor.
func openIn(pid int, path string, flags uint64) (int, error) {
	at := fmt.Sprintf("/proc/%d/root", pid)
	root, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: at, Err: err}
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return -1, &os.PathError{Op: "look at", Path: path, Err: err}
	}
	return fd, nil
}
