// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// unifiedEnv asks TestMain for a private mount namespace in which
// /sys/fs/cgroup is the unified hierarchy.
const unifiedEnv = "MIG_TEST_UNIFIED"

func mountUnified() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("cgroup2: %w", err)
	}
	return nil
}
