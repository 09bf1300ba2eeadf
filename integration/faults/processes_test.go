// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// shim finds the shim of a container: it was started with its id and the
// host's namespace.
func (v *victim) shim() int {
	v.t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		content, _ := os.ReadFile(file)
		args := strings.Split(string(content), "\x00")
		if strings.Contains(args[0], "containerd-shim-mig-v1") && follows(args, "-namespace", v.host.Namespace) && follows(args, "-id", v.id) {
			return pidOf(file)
		}
	}
	v.t.Fatalf("no shim of %s", v.id)
	return 0
}

func follows(args []string, flag, value string) bool {
	for i := range len(args) - 1 {
		if args[i] == flag && args[i+1] == value {
			return true
		}
	}
	return false
}

func pidOf(file string) int {
	pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
	return pid
}

// engineOf finds the engine process that a shim has started, 0 if it has none
// now: a child of one of its threads that runs that program.
func engineOf(shim int) int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", shim))
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for child := range strings.FieldsSeq(string(children)) {
			cmdline, _ := os.ReadFile("/proc/" + child + "/cmdline")
			if program, _, _ := strings.Cut(string(cmdline), "\x00"); filepath.Base(program) == "mig-engine" {
				pid, _ := strconv.Atoi(child)
				return pid
			}
		}
	}
	return 0
}

// peak is a process's largest resident size so far, in bytes, 0 if it is gone.
func peak(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kb, _ := strconv.ParseUint(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// noPanic asserts that none of our processes has crashed, by the daemon's log,
// which their output goes to.
func noPanic(t *testing.T, h *host) {
	t.Helper()
	log := h.Log()
	for _, sign := range []string{"panic:", "goroutine 1 [", "fatal error:", "SIGSEGV"} {
		if i := strings.Index(log, sign); i >= 0 {
			t.Errorf("something has crashed:\n%s", log[max(0, i-200):min(len(log), i+2000)])
		}
	}
}
