// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
)

// Process names a process so that a later one with its pid is not taken for it.
type Process struct {
	Pid int `json:"pid"`
	// Start is its start time in clock ticks since boot, field 22 of
	// /proc/pid/stat.
	Start uint64 `json:"start"`
}

// ProcessOf is the process that has a pid now.
func ProcessOf(pid int) (Process, error) {
	_, start, err := stat(pid)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return Process{Pid: pid, Start: start}, nil
}

// Alive reports whether it has not ended. A zombie has. One that cannot be
// looked at counts as alive.
func (p Process) Alive() bool {
	if p.Pid <= 0 {
		return false
	}
	state, start, err := stat(p.Pid)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoProcess)
	}
	return start == p.Start && state != 'Z' && state != 'X'
}

var errNoProcess = errors.New("it has no state")

// stat reads fields 3 and 22 of /proc/pid/stat (proc_pid_stat(5)). The second
// field may hold spaces and parentheses, so the fields count from the last ")".
func stat(pid int) (state byte, start uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const field = 22 - 3
	if len(f) <= field || len(f[0]) != 1 {
		return 0, 0, errNoProcess
	}
	start, err = strconv.ParseUint(string(f[field]), 10, 64)
	return f[0][0], start, err
}

// doomed reads from /proc/pid/status whether the process is traced, and whether
// SIGKILL is on its way to it: for a moment after its tracer's death it still
// seems to live.
func (p Process) doomed() (traced, killed bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
	if err != nil {
		return false, true
	}
	for _, line := range bytes.Split(b, []byte("\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(name) {
		case "TracerPid":
			traced = string(value) != "0"
		case "SigPnd", "ShdPnd":
			mask, err := strconv.ParseUint(string(value), 16, 64)
			killed = killed || err != nil || mask&(1<<(9-1)) != 0
		}
	}
	return traced, killed
}
