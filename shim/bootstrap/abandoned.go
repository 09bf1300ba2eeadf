// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
)

// workLink is containerd's link in a bundle to the directory of the task's
// persistent data.
const workLink = "work"

// RemoveAbandoned removes what containerd has left of an earlier bundle with this
// one's id. containerd removes a bundle by a rename to ".ID" and then what is in it
// (core/runtime/v2, atomicDelete); if it is killed between the two, it never looks
// at that again, but the next bundle cannot be renamed to it: it stays, and with it
// no task of that id can be created any more. No id begins with a dot, and while
// there is a bundle nobody else removes one of that id: it is nobody's.
func RemoveAbandoned(bundle string) error {
	errs := []error{removeHidden(bundle)}
	if work, err := os.Readlink(filepath.Join(bundle, workLink)); err == nil && filepath.IsAbs(work) && filepath.Base(work) == filepath.Base(bundle) {
		errs = append(errs, removeHidden(work))
	}
	return errors.Join(errs...)
}

// removeHidden removes the directory that dir is renamed to before its removal.
func removeHidden(dir string) error {
	hidden := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir))
	if _, err := os.Lstat(hidden); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	// containerd unmounts before it renames. What is mounted all the same must
	// not be emptied.
	if err := mount.UnmountRecursive(hidden, 0); err != nil {
		return fmt.Errorf("%s, which containerd has left of an earlier task: %w (unmount and remove it)", hidden, err)
	}
	if err := os.RemoveAll(hidden); err != nil {
		return fmt.Errorf("what containerd has left of an earlier task: %w (remove %s)", err, hidden)
	}
	return nil
}
