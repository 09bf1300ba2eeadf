// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// unknownExit is reported where there is no status to be had: 128 + SIGKILL, as
// containerd's runc shim reports a container it found dead.
const unknownExit = 128 + int(unix.SIGKILL)

// watch takes charge of a process that libcontainer has started. The caller
// has entered children.
func watch(lp *libcontainer.Process) (*Process, error) {
	pid, err := lp.Pid()
	if err != nil {
		return nil, err
	}
	p, err := newProcessOf(pid)
	if err != nil {
		return nil, err
	}
	children.add(pid)
	go p.reap(func() int {
		// Wait also reports a non-zero exit as an error: the state says it.
		state, _ := lp.Wait()
		children.remove(pid)
		return exitStatus(state)
	})
	return p, nil
}

// deadProcess stands for an init that cannot be watched any more.
func deadProcess() *Process {
	p := &Process{done: make(chan struct{}), status: unknownExit, at: time.Now()}
	close(p.done)
	return p
}

// newProcessOf opens the pidfd. A zombie has one, too.
func newProcessOf(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open of pid %d (needs Linux 5.3): %w", pid, err)
	}
	// Non-blocking files use Go's poller: a waiting process costs no thread.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("pidfd of pid %d: %w", pid, err)
	}
	return &Process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), done: make(chan struct{})}, nil
}

// reap waits for the death, then for the status. The two are apart: the pidfd
// becomes readable as soon as the process is dead (pidfd_open(2)), but if another
// process traces it, wait4 returns only after that tracer has taken its own
// notice (ptrace(2), "Death under ptrace"). Nothing is locked meanwhile.
func (p *Process) reap(wait func() int) {
	p.awaitDeath()
	at := time.Now()
	p.status, p.at = wait(), at
	p.pidfd.Close()
	close(p.done)
}

func (p *Process) awaitDeath() {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return // not with a file that nobody closes before; wait then blocks instead
	}
	_ = conn.Read(func(fd uintptr) bool {
		dead, err := readable(int(fd))
		return dead || err != nil
	})
}

// readable polls without waiting.
func readable(fd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err == unix.EINTR {
			continue
		}
		return n > 0, err
	}
}

func exitStatus(state *os.ProcessState) int {
	if state == nil {
		return unknownExit
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return state.ExitCode()
	case ws.Signaled():
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
