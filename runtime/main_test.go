// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	if os.Getenv(creatorEnv) != "" {
		fmt.Fprintln(os.Stderr, createForOthers())
		os.Exit(1)
	}
	before := mounts()
	code := m.Run()
	for what, left := range map[string]any{
		"cgroups": leftCgroups(), "children": childPids(), "mounts": subtract(mounts(), before), "descriptors": leftFiles(),
	} {
		if text := fmt.Sprint(left); text != "[]" {
			fmt.Fprintf(os.Stderr, "FAIL: %s left behind: %s\n", what, text)
			code = 1
		}
	}
	os.Exit(code)
}

// mounts lists the mount points of this process's mount namespace.
func mounts() []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		points = append(points, strings.Fields(line)[4])
	}
	return points
}

// subtract ignores what other programs do on the machine: mounts of ours are
// below a temporary directory of a test's.
func subtract(now, before []string) []string {
	return slices.DeleteFunc(now, func(m string) bool {
		return slices.Contains(before, m) || !strings.Contains(m, "/Test")
	})
}

// leftFiles lists open pidfds, terminals and sockets.
func leftFiles() []string {
	var left []string
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		link, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		n, _ := strconv.Atoi(fd.Name())
		if n > 2 && (strings.Contains(link, "pidfd") || strings.HasPrefix(link, "socket:") || strings.HasPrefix(link, "/dev/pt") || strings.Contains(link, "inotify")) {
			left = append(left, fd.Name()+"="+link)
		}
	}
	return left
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
