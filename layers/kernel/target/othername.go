// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxLooked bounds how many names of a directory are looked at.
const maxLooked = 20000

// OtherName looks for another name of a file whose name is gone, in the
// directory where that was, as process pid sees it. A library that wants a file
// to appear whole makes it under a temporary name, links it to its own and
// removes the first (sem_open(3) of the GNU C library): the kernel goes on to
// show the temporary one. It returns an empty path if there is none.
func OtherName(pid int, gone string, st *unix.Stat_t) (string, error) {
	dir := filepath.Dir(gone)
	fd, err := openIn(pid, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for another name of %s: %w", gone, err)
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	for looked := 0; looked < maxLooked; {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			var now unix.Stat_t
			if unix.Fstatat(int(d.Fd()), name, &now, unix.AT_SYMLINK_NOFOLLOW) == nil && now.Dev == st.Dev && now.Ino == st.Ino {
				return filepath.Join(dir, name), nil
			}
		}
		looked += len(names)
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("look for another name of %s: %w", gone, err)
		}
	}
	return "", nil
}
