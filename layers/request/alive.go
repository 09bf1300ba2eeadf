// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
)

// self is this process.
func self() Process {
	start, _ := startTime(os.Getpid())
	return Process{Pid: os.Getpid(), Start: start}
}

// gone reports whether the process has certainly ended.
func (p Process) gone() bool {
	if p.Pid <= 0 {
		return false
	}
	start, err := startTime(p.Pid)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	return err == nil && p.Start != 0 && start != p.Start
}

// startTime reads field 22 of /proc/pid/stat (proc_pid_stat(5)). The second
// field may hold spaces and parentheses, so the fields count from the last ")".
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const field = 22 - 3
	if len(f) <= field {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields after the name", pid, len(f))
	}
	return strconv.ParseUint(string(f[field]), 10, 64)
}
