// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is a line of /proc/PID/maps, as far as injection needs it.
type mapping struct {
	Start, End, Offset        uint64
	Read, Write, Exec, Shared bool
	Inode                     uint64
	Name                      string
}

func (m *mapping) len() uint64 { return m.End - m.Start }
func (m *mapping) none() bool  { return !m.Read && !m.Write && !m.Exec }

func parseMaps(b []byte) ([]mapping, error) {
	var out []mapping
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 || len(f[1]) != 4 {
			return nil, fmt.Errorf("maps: cannot read line %q", line)
		}
		lo, hi, ok := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(lo, 16, 64)
		end, err2 := strconv.ParseUint(hi, 16, 64)
		off, err3 := strconv.ParseUint(f[2], 16, 64)
		ino, err4 := strconv.ParseUint(f[4], 10, 64)
		if err := errors.Join(err1, err2, err3, err4); err != nil || !ok {
			return nil, fmt.Errorf("maps: cannot read line %q", line)
		}
		m := mapping{
			Start: start, End: end, Offset: off, Inode: ino,
			Read: f[1][0] == 'r', Write: f[1][1] == 'w', Exec: f[1][2] == 'x', Shared: f[1][3] == 's',
		}
		if len(f) > 5 {
			m.Name = f[5]
		}
		out = append(out, m)
	}
	return out, nil
}

func readMaps(pid int) ([]mapping, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	return parseMaps(b)
}

func mapRanges(maps []mapping) []Range {
	r := make([]Range, len(maps))
	for i, m := range maps {
		r[i] = Range{m.Start, m.End}
	}
	return r
}

// taskStatus is what we need of /proc/PID/task/TID/status.
type taskStatus struct {
	State     byte
	NSTid     int // innermost pid namespace
	Tgid      int
	PPid      int
	TracerPid int
	Seccomp   int
	ShadowStk bool
	Signals   signalSets
}

func parseStatus(b []byte) taskStatus {
	var s taskStatus
	num := func(v []byte) int {
		n, _ := strconv.Atoi(string(v)) // absent or odd: zero, as on older kernels
		return n
	}
	hex := func(v []byte) uint64 {
		n, _ := strconv.ParseUint(string(v), 16, 64)
		return n
	}
	for line := range bytes.Lines(b) {
		key, v, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		v = bytes.TrimSpace(v)
		switch string(key) {
		case "State":
			if len(v) > 0 {
				s.State = v[0]
			}
		case "Tgid":
			s.Tgid = num(v)
		case "PPid":
			s.PPid = num(v)
		case "TracerPid":
			s.TracerPid = num(v)
		case "NSpid":
			f := bytes.Fields(v)
			if len(f) > 0 {
				s.NSTid = num(f[len(f)-1])
			}
		case "Seccomp":
			s.Seccomp = num(v)
		case "x86_Thread_features":
			s.ShadowStk = bytes.Contains(v, []byte("shstk"))
		case "SigPnd":
			s.Signals.Pending = hex(v)
		case "ShdPnd":
			s.Signals.SharedPending = hex(v)
		case "SigBlk":
			s.Signals.Blocked = hex(v)
		case "SigIgn":
			s.Signals.Ignored = hex(v)
		case "SigCgt":
			s.Signals.Caught = hex(v)
		}
	}
	return s
}

func readStatus(pid, tid int) (taskStatus, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
	if err != nil {
		return taskStatus{}, notThere(err)
	}
	return parseStatus(b), nil
}

// notThere turns the errors of a vanished /proc entry into ErrExited.
func notThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w (%v)", ErrExited, err)
	}
	return err
}

// listTasks returns the thread ids of pid in ascending order.
func listTasks(pid int) ([]int, error) {
	d, err := os.Open(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, notThere(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, notThere(err)
	}
	tids := make([]int, 0, len(names))
	for _, n := range names {
		if tid, err := strconv.Atoi(n); err == nil {
			tids = append(tids, tid)
		}
	}
	slices.Sort(tids)
	return tids, nil
}

// entryPoint returns AT_ENTRY of pid's auxiliary vector, 0 if unknown.
func entryPoint(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	if err != nil {
		return 0
	}
	const atEntry = 9
	for ; len(b) >= 16; b = b[16:] {
		if leUint64(b) == atEntry {
			return leUint64(b[8:])
		}
	}
	return 0
}

// currentSyscall returns the number of the system call a task sits in, as text.
func currentSyscall(pid, tid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, tid))
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// isVfork says whether a line of /proc/PID/syscall is a call that can wait
// for a vfork child.
func isVfork(line string) bool {
	f := strings.Fields(line)
	if len(f) == 0 {
		return false
	}
	nr, err := strconv.Atoi(f[0])
	if err != nil {
		return false
	}
	switch nr {
	case unix.SYS_VFORK, unix.SYS_CLONE3:
		return true
	case unix.SYS_CLONE:
		if len(f) < 2 {
			return false
		}
		flags, err := strconv.ParseUint(strings.TrimPrefix(f[1], "0x"), 16, 64)
		return err == nil && flags&unix.CLONE_VFORK != 0
	}
	return false
}

// listChildren returns the children a thread made.
func listChildren(pid, tid int) ([]int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, tid))
	if err != nil {
		return nil, notThere(err)
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("children of %d: %w", pid, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// processOf returns the process a thread belongs to, the thread itself if
// that cannot be read.
func processOf(tid int) int {
	if st, err := readStatus(tid, tid); err == nil {
		return st.Tgid
	}
	return tid
}
