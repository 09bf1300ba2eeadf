// SPDX-License-Identifier: Apache-2.0

package target

import "cmp"

// Born says when a process was made: in ticks of the clock (proc_pid_stat(5),
// starttime), and by its id, which tells those of one tick apart.
type Born struct {
	Start uint64
	Pid   int
}

// wrapped is more than the ids that are given within a tick, 10 ms: of two that are
// farther apart the greater one came first, since ids are given in a circle
// (/proc/sys/kernel/pid_max).
const wrapped = 8192

// Compare orders processes by their age, the eldest first. A process that has made
// others with which it has something in common comes before them. Ids alone do not
// tell: they begin anew.
func (b Born) Compare(o Born) int {
	if b.Start != o.Start {
		return cmp.Compare(b.Start, o.Start)
	}
	if d := b.Pid - o.Pid; d > wrapped || d < -wrapped {
		return cmp.Compare(o.Pid, b.Pid)
	}
	return cmp.Compare(b.Pid, o.Pid)
}
