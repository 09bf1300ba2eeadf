// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// A turn (turn.go) is made by a process of its own, since the engine may be
// killed at any moment: this program, started under a name by which it knows what
// it is to do, in a session of its own. If it is the helper that is killed, the
// engine finishes the turn. It lives for some milliseconds, and only where there
// are messages.

// turnName is the helper's argv[0].
const turnName = "mig-mqueue-turn"

// Descriptors of the helper: the turn's memory and the queue.
const (
	turnMemoryFD = 3
	turnQueueFD  = 4
)

func init() {
	if len(os.Args) == 1 && os.Args[0] == turnName {
		os.Exit(helpTurn())
	}
}

// helpTurn is the helper.
func helpTurn() int {
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	var st unix.Stat_t
	if unix.Fstat(turnMemoryFD, &st) != nil {
		return 1
	}
	memory, err := unix.Mmap(turnMemoryFD, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 1
	}
	if (&turn{turnQueueFD, memory}).run() != nil {
		return 1
	}
	return 0
}

// readMessages calls fn with copies of a queue's messages, in their order. The
// container must be frozen.
func readMessages(root *os.File, q *posixQueue, fn func(prio uint32, text []byte) error) (err error) {
	fd, err := unix.Openat(int(root.Fd()), q.name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	file, err := unix.MemfdCreate("mqueue-turn", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(file)
	size := turnSize(q)
	if err := unix.Ftruncate(file, size); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	memory, err := unix.Mmap(file, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(memory)) }()
	t := newTurn(fd, q, memory)
	pid, err := startTurn(file, fd)
	if err != nil {
		return fmt.Errorf("start a helper for messages: %w", err)
	}
	if err := finishTurn(pid, t); err != nil {
		return err
	}
	return t.each(fn)
}

// startTurn starts the helper.
func startTurn(memory, queue int) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	return syscall.ForkExec("/proc/self/exe", []string{turnName}, &syscall.ProcAttr{
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(memory), uintptr(queue)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

// finishTurn waits for the helper and does what it has left.
func finishTurn(pid int, t *turn) error {
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return errors.Join(err, t.run())
		}
	}
}
