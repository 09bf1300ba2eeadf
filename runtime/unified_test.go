// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// unifiedEnv asks TestMain to make /sys/fs/cgroup the unified hierarchy, in the
// private mount namespace that this process was started in.
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

// TestUnified runs this package's tests again on cgroup v2. Limits are left
// out where the v2 mount has no controllers (they are bound to v1 hierarchies).
func TestUnified(t *testing.T) {
	if os.Getenv(unifiedEnv) != "" {
		t.Skip("this is the inner run")
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run",
		"^(TestV2|TestCreateStartExit|TestExec|TestPauseResume|TestSignalAll|TestDestroy|TestUserNamespace|TestFrame|TestLoad|TestCgroupsBelow)")
	cmd.Env = append(os.Environ(), unifiedEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestV2Freezer")) {
		t.Errorf("the v2 tests did not run:\n%s", out)
	}
}

// TestV2Freezer looks at the kernel's own files.
func TestV2Freezer(t *testing.T) {
	if os.Getenv(unifiedEnv) == "" {
		t.Skip("runs inside TestUnified")
	}
	s := newSandbox(t)
	c := s.start(s.options("v2", s.spec("v2", sh("sleep 1000 & sleep 1000")...)))
	want(t, "unified", c.CgroupV2(), true)
	dir := c.CgroupPaths()[""]
	want(t, "cgroup", dir, "/sys/fs/cgroup"+testCgroup+"/v2")
	events := func() string {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		must(t, err)
		return strings.Join(strings.Fields(string(data)), " ")
	}
	must(t, c.Pause())
	want(t, "events", events(), "populated 1 frozen 1")
	st, err := c.Status()
	must(t, err)
	want(t, "state", st.State, StatePaused)
	must(t, c.Resume())
	want(t, "events", events(), "populated 1 frozen 0")
	must(t, c.Pause())
	s.destroy(c) // cgroup.kill reaches frozen tasks
	want(t, "status", waitDone(t, c.Init()), 137)
}

// TestV2OOM needs the memory controller in the unified hierarchy.
func TestV2OOM(t *testing.T) {
	if os.Getenv(unifiedEnv) == "" {
		t.Skip("runs inside TestUnified")
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	must(t, err)
	if !strings.Contains(string(controllers), "memory") {
		t.Skip("the unified hierarchy has no memory controller here")
	}
	TestOOM(t)
}
