// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tcprepair

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Undo ends repair mode and deafness of every TCP socket that the processes
// have, and tells of how many. It is for the supervisor of an engine that died: the container
// must be frozen, or its program would find a connection that it cannot read
// from. What SO_REUSEADDR was died with the engine; it is set, the value that
// forbids least. A process that is gone has no sockets.
func Undo(pids []int) (undone int, err error) {
	var errs []error
	for _, pid := range pids {
		n, err := undo(pid)
		undone += n
		errs = append(errs, err)
	}
	return undone, errors.Join(errs...)
}

func undo(pid int) (undone int, err error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, ignoreGone(fmt.Errorf("open a pidfd of pid %d: %w", pid, err))
	}
	defer unix.Close(pidfd)
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, ignoreGone(err)
	}
	var errs []error
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		was, err := undoOne(pidfd, pid, fd)
		if was {
			undone++
		}
		errs = append(errs, err)
	}
	return undone, errors.Join(errs...)
}

// undoOne looks at what kind of file a descriptor is before it takes it: a
// duplicate of a device or a pipe could be missed by whoever waits for its end.
func undoOne(pidfd, pid, fd int) (was bool, err error) {
	var st unix.Stat_t
	path := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return false, ignoreGone(err)
	}
	own, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return false, ignoreGone(fmt.Errorf("take descriptor %d of pid %d: %w", fd, pid, err))
	}
	defer unix.Close(own)
	if p, err := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || p != unix.IPPROTO_TCP {
		return false, nil
	}
	if deaf(own) {
		was = true
		if err := Hear(own); err != nil {
			return was, fmt.Errorf("pid %d: fd %d: %w", pid, fd, err)
		}
	}
	if active, err := Active(own); err != nil || !active {
		return was, nil
	}
	if err := Leave(own, 1, false); err != nil {
		return false, fmt.Errorf("pid %d: fd %d: end repair mode: %w", pid, fd, err)
	}
	return true, nil
}

// ignoreGone: the process or the descriptor has ended since it was listed.
func ignoreGone(err error) error {
	for _, gone := range []error{unix.ESRCH, unix.ENOENT, unix.EBADF} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}
