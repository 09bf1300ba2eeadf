// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"maps"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// Apart is a thread that has not all in common with its process: it, or the thread
// that has made it, has given up directories or the descriptor table, by unshare(2)
// or by clone(2) without CLONE_FS or CLONE_FILES.
type Apart struct {
	Tid int
	// Directories and Table name the first thread that has the same, which may be
	// this one; 0: they are the process's.
	Directories, Table int
}

// FindApart finds a process's threads that have not all in common with the task by
// which it is looked at, in the order of their ids. A thread that ends meanwhile is
// left out.
func FindApart(proc procfs.Task) ([]Apart, error) {
	tids, err := proc.Threads()
	if err != nil || len(tids) < 2 {
		return nil, err
	}
	directories, err := departed(proc, tids, ResourceFS)
	if err != nil {
		return nil, err
	}
	tables, err := departed(proc, tids, ResourceFiles)
	if err != nil {
		return nil, err
	}
	var out []Apart
	for _, tid := range tids {
		if a := (Apart{tid, directories[tid], tables[tid]}); a.Directories != 0 || a.Table != 0 {
			out = append(out, a)
		}
	}
	return out, nil
}

// departed finds the threads that do not share a resource with the process, and names
// for each the first that has the same. Nearly all have the process's of what may be
// thousands: they are compared with it side by side.
func departed(proc procfs.Task, tids []int, r Resource) (map[int]int, error) {
	pid := proc.Pid()
	other := make([]bool, len(tids))
	err := Env{Workers: runtime.GOMAXPROCS(0)}.Each(len(tids), func(i int) error {
		if tids[i] == pid {
			return nil
		}
		same, err := SharesWith(pid, tids[i], r)
		if err != nil && !procfs.IsGone(err) {
			return err
		}
		other[i] = err == nil && !same
		return nil
	})
	if err != nil {
		return nil, err
	}
	out, sharers := map[int]int{}, NewSharers(r)
	for i, tid := range tids {
		if !other[i] {
			continue
		}
		with, err := sharers.Add(tid)
		if procfs.IsGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if st, err := proc.Thread(tid).Status(); procfs.IsGone(err) || err == nil && !st.HasMM {
			continue // it is ending, and has no files any more
		} else if err != nil {
			return nil, err
		}
		if out[tid] = with; with == 0 {
			out[tid] = tid
		}
	}
	return out, nil
}

// tables are the tasks by which the descriptor tables of a process are looked at: its
// own, and that of the first thread of each that threads have for themselves.
func (s *Source) tables(proc procfs.Task) ([]procfs.Task, error) {
	out := []procfs.Task{proc}
	tids, err := proc.Threads()
	if err != nil || len(tids) < 2 {
		return out, err
	}
	own, err := departed(proc, tids, ResourceFiles)
	if err != nil {
		return nil, err
	}
	for _, tid := range slices.Sorted(maps.Keys(own)) {
		if own[tid] == tid {
			out = append(out, s.proc.Process(tid))
		}
	}
	return out, nil
}

// Tables are the tasks by which all descriptor tables of the running process are
// looked at, its own first.
func (p *Process) Tables() ([]procfs.Task, error) { return p.source.tables(p.Proc) }

// Apart finds the threads of a stopped process that have not all in common with it.
func (p *Process) Apart() ([]Apart, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.findApart()
}

// findApart looks once; p.mu is held.
func (p *Process) findApart() ([]Apart, error) {
	if p.apart == nil {
		if p.Traced != nil && len(p.Traced.Threads()) < 2 {
			p.apart = new([]Apart)
			return nil, nil
		}
		found, err := FindApart(p.Proc)
		if err != nil {
			return nil, err
		}
		p.apart = &found
	}
	return *p.apart, nil
}

// ThreadFiles reports whether the kernel gives out descriptors of a thread that leads
// no process (Linux 6.9), or the thread has ended.
func ThreadFiles(tid int) bool {
	fd, err := Pidfd(tid)
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, unix.EINVAL)
}
