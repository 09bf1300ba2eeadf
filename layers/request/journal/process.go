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
	st, err := readStat(pid)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return Process{Pid: pid, Start: st.start}, nil
}

// Alive reports whether it has not ended. A zombie has. One that cannot be
// looked at counts as alive.
func (p Process) Alive() bool {
	if p.Pid <= 0 {
		return false
	}
	st, err := readStat(p.Pid)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoProcess)
	}
	return st.start == p.Start && st.state != 'Z' && st.state != 'X'
}

var errNoProcess = errors.New("it has no state")

// stat is what is needed of /proc/pid/stat (proc_pid_stat(5)).
type stat struct {
	state byte   // field 3
	flags uint64 // field 9, PF_* of include/linux/sched.h
	start uint64 // field 22
	exit  uint64 // field 52, exit_code
}

// readStat parses it. The second field may hold spaces and parentheses, so the
// fields count from the last ")".
func readStat(pid int) (s stat, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const first = 3 // the number of the first field in f
	if len(f) <= 52-first || len(f[0]) != 1 {
		return s, errNoProcess
	}
	s.state = f[0][0]
	for _, field := range []struct {
		number int
		to     *uint64
	}{{9, &s.flags}, {22, &s.start}, {52, &s.exit}} {
		if *field.to, err = strconv.ParseUint(string(f[field.number-first]), 10, 64); err != nil {
			return s, err
		}
	}
	return s, nil
}

// flagExiting is PF_EXITING.
const flagExiting = 0x4

// doomed reports whether the process is traced, and whether it is about to die:
// for a moment after its tracer's death it still seems to live. SIGKILL shows in
// turn as pending, as the exit code of the whole process (from the moment it is
// sent: kernel/signal.c, complete_signal, and fs/proc/array.c since 5.18), and as
// PF_EXITING. The exit code of a stopped process is its stopping signal.
func (p Process) doomed() (traced, killed bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
	if err != nil {
		return false, true
	}
	for _, line := range bytes.Split(status, []byte("\n")) {
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
	// Read later than what it is compared with: a SIGKILL that is taken from the
	// queue meanwhile shows here.
	st, err := readStat(p.Pid)
	killed = killed || err != nil || st.flags&flagExiting != 0 || st.exit != 0 && st.state != 'T'
	return traced, killed
}
