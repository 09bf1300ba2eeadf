// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxPath is PATH_MAX without the NUL byte, maxName NAME_MAX.
	maxPath = unix.PathMax - 1
	maxName = 255
	// rootPath is the tree's root itself.
	rootPath = "."
)

var errPath = errors.New("not a path in a tree")

// checkPath accepts what an item may name: a relative path, without empty
// components, "." and "..", or the root.
func checkPath(b []byte) (string, error) {
	path := string(b)
	if path == rootPath {
		return path, nil
	}
	if len(path) > maxPath || strings.IndexByte(path, 0) >= 0 {
		return "", fmt.Errorf("%w: %.100q has %d bytes or a NUL byte", errPath, path, len(path))
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || len(name) > maxName {
			return "", fmt.Errorf("%w: %.100q has the component %.100q", errPath, path, name)
		}
	}
	return path, nil
}

// split cuts the last component off; the directory of a single one is the root.
func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return rootPath, path
}

func join(dir, name string) string {
	if dir == rootPath {
		return name
	}
	return dir + "/" + name
}

// beneath is how paths inside of a tree are looked up.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openBeneath opens path below the directory root.
func openBeneath(root int, path string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW), Resolve: beneath}
	for {
		fd, err := unix.Openat2(root, path, &how)
		if err == unix.EINTR || err == unix.EAGAIN { // EAGAIN: a rename on the way (openat2(2))
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return fd, nil
	}
}

// procFD is the link of a descriptor of ours, for calls that take no O_PATH
// descriptor.
func procFD(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
