// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
)

// onTmpfs refuses a name in a directory on a tmpfs of the container: the
// directory is not carried, so a restore could not bind the name. The root of a
// tmpfs is there. A name that is relative, or leads nowhere, is looked at by the
// export.
func onTmpfs(t procfs.Task, name []byte) error {
	if len(name) == 0 || name[0] != '/' {
		return nil
	}
	file := strings.TrimRight(string(name), "\x00")
	var at, root unix.Stat_t
	// With a dot the last link of the path is followed, too.
	if err := target.Lstat(t.Pid(), path.Dir(file)+"/.", &at); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	own, err := target.OwnTmpfs(t, at.Dev)
	if err != nil || own == nil {
		return err
	}
	if err := target.Lstat(t.Pid(), own.Target+"/.", &root); err != nil {
		return err
	}
	if root.Ino == at.Ino {
		return nil
	}
	return &refusal{
		fmt.Sprintf("unix socket %s", printable(name)),
		"it is in a directory on a tmpfs of the container (" + own.Target + "), which is not carried by this version", "mount a volume there",
	}
}
