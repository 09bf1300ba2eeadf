// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// thread is one thread of the stopped container.
type thread struct {
	process *target.Process
	inner   int // its id in the container
}

// threadsOf are all threads by their ids on the host, and how many of each process
// there are.
func threadsOf(processes []*target.Process) (byTid map[int]thread, count map[record.ProcessID]int, err error) {
	byTid, count = map[int]thread{}, map[record.ProcessID]int{}
	for _, p := range processes {
		if p.Traced == nil {
			return nil, nil, fmt.Errorf("process %d: %w", p.ID, target.ErrNotStopped)
		}
		for _, th := range p.Traced.Threads() {
			byTid[th.Tid] = thread{p, th.NSTid}
			count[p.ID]++
		}
	}
	return byTid, count, nil
}

// members finds out who is in which cgroup. Who is in the container's own is not
// named.
func (t *tree) members(byTid map[int]thread, count map[record.ProcessID]int) error {
	file := "tasks"
	if t.v2 {
		file = "cgroup.threads"
	}
	for i, c := range t.Cgroup {
		tids, err := words(t.dirs[i+1], file)
		if err != nil {
			return err
		}
		here, in, err := present(tids, byTid)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(t.dirs[i+1], file), err)
		}
		named := map[record.ProcessID]bool{}
		for _, th := range here {
			id, m := th.process.ID, &state.CgroupMember{Process: uint32(th.process.ID)}
			// In a domain of version 2 a process is as a whole, wherever below it
			// its threads are.
			if t.v2 && c.Threaded || !t.v2 && in[id] < count[id] {
				m.Tid = uint32(th.inner)
			} else if named[id] {
				continue
			}
			named[id] = true
			c.Member = append(c.Member, m)
		}
	}
	return nil
}

// present are those of a list of ids that are the program's, and how many each
// process has of them. Others are the kernel's, and not carried.
func present(tids []string, byTid map[int]thread) (here []thread, in map[record.ProcessID]int, err error) {
	in = map[record.ProcessID]int{}
	for _, s := range tids {
		tid, err := strconv.Atoi(s)
		if err != nil {
			return nil, nil, err
		}
		if th, ok := byTid[tid]; ok {
			here = append(here, th)
			in[th.process.ID]++
		}
	}
	return here, in, nil
}

// join puts a task into a cgroup.
func join(dir, file string, tid int) error {
	return write(dir, file, strconv.Itoa(tid))
}
