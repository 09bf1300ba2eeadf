// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// testCgroup is the parent of every test container's cgroup.
const testCgroup = "/mig-runtime-test"

func TestMain(m *testing.M) {
	Init() // has happened before main: see runtime/reexec
	if os.Geteuid() != 0 {
		fmt.Println("SKIP: containers need root")
		os.Exit(0)
	}
	if os.Getenv(unifiedEnv) != "" {
		if err := mountUnified(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if os.Getenv(tracerEnv) != "" {
		if err := traceAndHold(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if left := leftCgroups(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "FAIL: cgroups left behind:", left)
		code = 1
	}
	if left := childPids(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "FAIL: children left behind:", left)
		code = 1
	}
	os.Exit(code)
}

// leftCgroups removes the parent cgroups and returns what is below them still.
func leftCgroups() []string {
	var left []string
	for _, pattern := range []string{"/sys/fs/cgroup" + testCgroup, "/sys/fs/cgroup/*" + testCgroup} {
		parents, _ := filepath.Glob(pattern)
		for _, parent := range parents {
			below, _ := filepath.Glob(parent + "/*/cgroup.procs")
			left = append(left, below...)
			_ = unix.Rmdir(parent)
		}
	}
	return left
}
