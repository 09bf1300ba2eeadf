// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// unifiedEnv asks for cgroup version 2 and nothing else, in the private mount
// namespace that this process was started in.
const unifiedEnv = "MIG_KERNELTEST_UNIFIED"

func init() {
	if os.Getenv(unifiedEnv) == "" {
		return
	}
	if err := mountUnified(); err != nil {
		fmt.Fprintln(os.Stderr, "kerneltest: cgroup version 2:", err)
		os.Exit(125)
	}
}

func mountUnified() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	// What lies below may refuse to go one by one, but not as a whole.
	if err := unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "")
}

// TestUnified runs the round trips again with version 2's freezer, which stops
// tasks in another way: a frozen task can be seized and looked at.
func TestUnified(t *testing.T) {
	kerneltest.NeedRoot(t)
	if os.Getenv(unifiedEnv) != "" {
		t.Skip("this is the inner run")
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.short", "-test.run", "^(TestV2|TestPausedContainer|TestThreads|TestSettings|TestSignals|TestMemory|TestGo)")
	cmd.Env = append(os.Environ(), unifiedEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"TestV2Freezer", "TestPausedContainer", "TestGo"} {
		if !bytes.Contains(out, []byte("--- PASS: "+name)) {
			t.Errorf("%s did not run on version 2:\n%s", name, out)
		}
	}
}

// TestV2Freezer looks at the kernel's own file while an export is under way.
func TestV2Freezer(t *testing.T) {
	if os.Getenv(unifiedEnv) == "" {
		t.Skip("runs inside TestUnified")
	}
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/threads.c", Args: []string{"3"}})
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, path, found := bytes.Cut(bytes.TrimSpace(own), []byte("0::"))
	if !found {
		t.Fatalf("no unified cgroup in %q", own)
	}
	events := func() string {
		text, err := os.ReadFile("/sys/fs/cgroup" + string(path) + "/cgroup.events")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	freeze(t, c)
	if got := events(); got != "populated 1\nfrozen 1\n" {
		t.Fatalf("frozen: %q", got)
	}
	if err := c.Freezer.Thaw(); err != nil {
		t.Fatal(err)
	}
	c.Verify()
	if got := events(); got != "populated 1\nfrozen 0\n" {
		t.Fatalf("thawed: %q", got)
	}
}
