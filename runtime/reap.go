// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// children knows which child processes of this process have somebody who will
// wait for them. Whatever else is a child was reparented to us.
var children = &childTable{owned: map[int]int{}}

// childTable: while anybody is starting a process (a fork has happened whose
// pid nobody has noted yet), no unknown child is taken for an orphan.
type childTable struct {
	mu       sync.Mutex
	starting int
	asked    bool
	// owned counts the owners of a pid: a pid may be reused by a new child
	// between the wait for the old one and remove.
	owned map[int]int
}

func (t *childTable) enter() {
	t.mu.Lock()
	t.starting++
	t.mu.Unlock()
}

func (t *childTable) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.starting--
	if t.starting == 0 && t.asked {
		t.asked = false
		t.reap()
	}
}

func (t *childTable) add(pid int) {
	t.mu.Lock()
	t.owned[pid]++
	t.mu.Unlock()
}

func (t *childTable) remove(pid int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owned[pid]--; t.owned[pid] <= 0 {
		delete(t.owned, pid)
	}
}

// Spawn runs start, which starts a child of this process and returns its pid,
// so that ReapOrphans never takes the child for an orphan. release must be
// called after the child was waited for. Every child that this package does not
// start itself must be started so in a program that uses ReapOrphans.
func Spawn(start func() (pid int, err error)) (release func(), err error) {
	children.enter()
	defer children.leave()
	pid, err := start()
	if err != nil {
		return nil, err
	}
	children.add(pid)
	return sync.OnceFunc(func() { children.remove(pid) }), nil
}

// ReapOrphans waits for dead processes that were reparented to this process
// (PR_SET_CHILD_SUBREAPER, or a container in our pid namespace) and that nobody
// here started. It never blocks: call it on SIGCHLD. While a process is being
// started the request is only noted, and served when that start has ended. It
// returns how many it reaped.
func ReapOrphans() int {
	t := children
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.starting > 0 {
		t.asked = true
		return 0
	}
	return t.reap()
}

// reap is called with mu held: nobody starts a process meanwhile.
func (t *childTable) reap() int {
	reaped := 0
	for _, pid := range childPids() {
		if t.owned[pid] > 0 {
			continue
		}
		if got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err == nil && got == pid {
			reaped++
		}
	}
	return reaped
}

// childPids reads the children of every thread (proc_pid_task_children(5));
// zombies are among them. A list may be short while children exit, which is
// why a caller asks again at the next SIGCHLD.
func childPids() []int {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	var pids []int
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
