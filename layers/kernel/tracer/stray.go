// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A stray is a task that a frame has made with CLONE_PTRACE and that no handle
// knows: the frame, or it, was killed between the call and its adoption. It is our
// tracee all the same, so nobody else can take its end. Until that is taken, its
// process is not reported dead, if it is a thread; and the first process of its
// pid namespace, which waits for all others (zap_pid_ns_processes), does not end.

// endStrays kills the strays among a process's threads and children and takes the
// ends of those that are dead. It says whether there were any of the latter.
func (p *Process) endStrays() (taken bool) {
	tids, err := listTasks(p.Pid)
	if err != nil {
		return false // it has ended
	}
	for _, tid := range tids {
		if p.find(tid) == nil {
			taken = p.Tracer.endStray(p.Pid, tid) || taken
		}
		children, _ := listChildren(p.Pid, tid) // none: the thread is gone
		for _, child := range children {
			if !p.Tracer.knows(child) {
				taken = p.Tracer.endProcess(child) || taken
			}
		}
	}
	return taken
}

// knows: a handle has that process, and will end it.
func (t *Tracer) knows(pid int) bool {
	for p := range t.procs {
		if p.Pid == pid && len(p.threads) > 0 {
			return true
		}
	}
	return false
}

// endProcess is endStray for every task of a process.
func (t *Tracer) endProcess(pid int) (taken bool) {
	tids, _ := listTasks(pid) // none: it has ended
	for _, tid := range tids {
		taken = t.endStray(pid, tid) || taken
	}
	return taken
}

// endStray leaves alone what is not traced by us. A tracee's id is not another's
// before we have taken its end.
func (t *Tracer) endStray(pid, tid int) (taken bool) {
	st, err := readStatus(pid, tid)
	if err != nil || st.TracerPid != t.tid {
		return false
	}
	if _, err := peekStop(tid); errors.Is(err, ErrExited) {
		if tid == pid && st.PPid == unix.Getpid() {
			return false // for another thread of this program
		}
		reap(tid)
		return true
	}
	_ = unix.Kill(pid, unix.SIGKILL) // harmless to a dead one
	return false
}

// errDying is the end of a frame that is not reported before that of others, which
// is not to be waited for in the middle of a batch: Kill takes them all.
var errDying = fmt.Errorf("%w: it was killed, and waits for the ends of others", ErrExited)

// dying tells of a thread of a frame for which a batch waits whether it will ever
// stop again: ErrExited if its end can be taken, errDying if not yet.
func (p *Process) dying(th *Thread, dead bool) error {
	if dead {
		if _, err := peekStop(th.Tid); errors.Is(err, ErrExited) {
			return ErrExited
		}
		return errDying // a stray of its own process lacks
	}
	// The first process of a pid namespace never ends by itself in a batch. Others
	// do (End), and wait for nobody.
	if p.NSPid == 1 && exiting(p.Pid, th.Tid) {
		return errDying
	}
	return nil
}

// exiting: the kernel has begun to end a task (PF_EXITING in proc(5)'s flags).
func exiting(pid, tid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", pid, tid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	const flags, pfExiting = 6, 0x4
	if len(f) <= flags {
		return false
	}
	n, _ := strconv.ParseUint(f[flags], 10, 64)
	return n&pfExiting != 0
}
