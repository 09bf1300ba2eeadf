// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"
)

// Task is the directory of one process or of one thread. Both have the same
// files, so both have the same methods. It holds no resource and does not pin
// the task: a pid can be reused between two calls, unless the caller traces
// the task, is its parent or holds a pidfd and checks it afterwards.
type Task struct {
	fs  FS
	dir string // "7" or "7/task/9"
	pid int
	tid int
}

// Process is the directory of the process (thread group) pid.
func (f FS) Process(pid int) Task {
	return Task{fs: f, dir: strconv.Itoa(pid), pid: pid, tid: pid}
}

// Thread is the directory of the thread tid of the process pid.
func (f FS) Thread(pid, tid int) Task {
	return Task{fs: f, dir: strconv.Itoa(pid) + "/task/" + strconv.Itoa(tid), pid: pid, tid: tid}
}

// Processes lists the pids of this proc file system.
func (f FS) Processes() ([]int, error) { return f.numbers(".") }

// Pid is the process id given to Process or Thread.
func (t Task) Pid() int { return t.pid }

// Tid is the thread id given to Thread; the pid for a process.
func (t Task) Tid() int { return t.tid }

// Path is the full path of one of the task's files, for openers of "mem",
// "pagemap", "map_files/..." and for messages.
func (t Task) Path(name string) string { return t.fs.path(t.file(name)) }

func (t Task) file(name string) string { return t.dir + "/" + name }

// Thread is the directory of one thread of the process.
func (t Task) Thread(tid int) Task { return t.fs.Thread(t.pid, tid) }

// topLevel is the thread's directory directly below /proc, which readdir
// hides but lookup finds: some files exist only there (fs/proc/base.c,
// tgid_base_stuff).
func (t Task) topLevel() Task {
	if t.tid == t.pid {
		return t
	}
	return Task{fs: t.fs, dir: strconv.Itoa(t.tid), pid: t.pid, tid: t.tid}
}

// Threads lists the thread ids of the process.
func (t Task) Threads() ([]int, error) { return t.fs.numbers(t.file("task")) }

// FDs lists the open descriptors. The list of a running task may contain
// descriptors that are closed by the time they are looked at: see IsGone.
func (t Task) FDs() ([]int, error) { return t.fs.numbers(t.file("fd")) }

// parseTask reads one file of the task and parses it as a whole.
func parseTask[T any](t Task, name string, parse func([]byte) (T, error)) (T, error) {
	return once(t, name, func() (out T, err error) {
		err = t.fs.read(t.file(name), func(data []byte) (err error) {
			out, err = parse(data)
			return err
		})
		return out, err
	})
}

// Maps reads maps. It is empty for zombies and kernel threads.
func (t Task) Maps() ([]Mapping, error) { return t.AppendMaps(nil) }

// AppendMaps is Maps into the spare capacity of dst, for callers that look
// repeatedly. On error dst is returned unchanged.
func (t Task) AppendMaps(dst []Mapping) ([]Mapping, error) {
	if t.fs.still != nil {
		list, err := t.stillMaps()
		if err != nil {
			return dst, err
		}
		return append(dst, list...), nil
	}
	p := mapsParser{out: dst}
	if err := t.fs.stream(t.file("maps"), p.line); err != nil {
		return dst, err
	}
	return p.out, nil
}

// Smaps reads smaps. It costs the kernel a walk of all page tables: tens of
// milliseconds for a large task, so not while it is frozen if avoidable.
func (t Task) Smaps() ([]SmapsMapping, error) {
	var p smapsParser
	if err := t.fs.stream(t.file("smaps"), p.line); err != nil {
		return nil, err
	}
	return p.finish(t.Path("smaps"))
}

// Stat reads stat.
func (t Task) Stat() (Stat, error) { return parseTask(t, "stat", ParseStat) }

// Status reads status.
func (t Task) Status() (Status, error) { return parseTask(t, "status", ParseStatus) }

// Limits reads limits.
func (t Task) Limits() (Limits, error) { return parseTask(t, "limits", ParseLimits) }

// Auxv reads auxv. It is empty for zombies and kernel threads.
func (t Task) Auxv() ([]AuxEntry, error) { return parseTask(t, "auxv", ParseAuxv) }

// Timers reads timers: the POSIX timers of the process (not per thread).
func (t Task) Timers() ([]Timer, error) {
	list, err := parseTask(t.topLevel(), "timers", ParseTimers)
	return slices.Clone(list), err
}

// TimerSlack reads timerslack_ns, in nanoseconds. The value is per thread.
func (t Task) TimerSlack() (uint64, error) {
	return parseTask(t.topLevel(), "timerslack_ns", ParseDecimal)
}

// OOMScoreAdj reads oom_score_adj, -1000 to 1000; shared by the process.
func (t Task) OOMScoreAdj() (int, error) { return parseTask(t, "oom_score_adj", ParseOOMScoreAdj) }

// Personality reads personality(2)'s value.
func (t Task) Personality() (uint32, error) { return parseTask(t, "personality", ParseHex32) }

// CoredumpFilter reads coredump_filter, the core(5) bit mask. It is
// an error (empty file) for tasks without an address space.
func (t Task) CoredumpFilter() (uint32, error) {
	return parseTask(t.topLevel(), "coredump_filter", ParseHex32)
}

// Cmdline reads the argument vector. The application may have overwritten it.
// It is nil for zombies and kernel threads.
func (t Task) Cmdline() ([]string, error) { return parseTask(t, "cmdline", ParseCmdline) }

// Comm reads the task's name, up to 15 bytes of any value but zero.
func (t Task) Comm() (string, error) { return parseTask(t, "comm", ParseComm) }

// Children lists the children of this thread (of the main thread, for a
// process). Unless all of them are stopped, the kernel may skip some.
func (t Task) Children() ([]int, error) {
	if t.pid == t.tid {
		t = t.Thread(t.tid)
	}
	return parseTask(t, "children", ParseChildren)
}

// LoginUID reads loginuid: 4294967295 means unset.
func (t Task) LoginUID() (uint32, error) {
	v, err := parseTask(t, "loginuid", ParseDecimal)
	return uint32(v), err
}

// Cgroup reads cgroup.
func (t Task) Cgroup() ([]CgroupEntry, error) { return parseTask(t, "cgroup", ParseCgroup) }

// UIDMap reads uid_map. The outer ids are relative to the reader's own user
// namespace.
func (t Task) UIDMap() ([]IDMap, error) { return parseTask(t, "uid_map", ParseIDMap) }

// GIDMap reads gid_map.
func (t Task) GIDMap() ([]IDMap, error) { return parseTask(t, "gid_map", ParseIDMap) }

// TimensOffsets reads timens_offsets: those of the time namespace that
// children will live in.
func (t Task) TimensOffsets() ([]TimensOffset, error) {
	return parseTask(t.topLevel(), "timens_offsets", ParseTimensOffsets)
}

// Mountinfo reads the mounts of the task's mount namespace that are below its
// root directory.
func (t Task) Mountinfo() ([]Mount, error) {
	var p mountParser
	err := t.fs.stream(t.file("mountinfo"), p.line)
	if errors.Is(err, syscall.EINVAL) { // it is on its way out (fs/proc_namespace.c, mounts_open_common)
		err = fmt.Errorf("%w: %w", syscall.ESRCH, err)
	}
	if err != nil {
		return nil, err
	}
	return p.out, nil
}
