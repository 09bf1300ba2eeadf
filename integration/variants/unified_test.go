// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// unifiedEnv asks for cgroup version 2 and nothing else, in the private mount
// namespace that this process was started in.
const unifiedEnv = "MIG_VARIANTS_UNIFIED"

// mountUnified makes /sys/fs/cgroup the unified hierarchy.
func mountUnified() error {
	if os.Getenv(unifiedEnv) == "" {
		return nil
	}
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := syscall.Unmount("/sys/fs/cgroup", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("/sys/fs/cgroup: %w", err)
	}
	if err := syscall.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("cgroup2: %w", err)
	}
	return nil
}

// TestUnified makes some of the round trips on a host with cgroup version 2. Its
// controllers may all be bound to version 1's hierarchies here, so that there
// are no limits, but the freezer is always there.
func TestUnified(t *testing.T) {
	if os.Getenv(unifiedEnv) != "" {
		t.Skip("this is the inner run")
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run", "^(TestMatrix|TestPaused|TestPausedExit|TestParallel|TestRedisUser|TestCgroups|TestCgroupsOfAnother)$/^(root|userns-user|seccomp|deep)?$")
	cmd.Env = append(os.Environ(), unifiedEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"TestMatrix/root", "TestPaused", "TestPausedExit", "TestParallel", "TestRedisUser", "TestCgroups", "TestCgroupsOfAnother"} {
		if !bytes.Contains(out, []byte("--- PASS: "+name+" ")) {
			t.Errorf("%s did not run on version 2:\n%s", name, out)
		}
	}
}
