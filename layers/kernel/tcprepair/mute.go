// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tcprepair

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
)

// Mute puts the marked connections of the processes into repair mode, in which their end
// tells the other ends nothing: those go on with a copy. It is for the supervisor of an
// engine that has ended, before it ends the original; the container must be frozen. A
// process that is gone has no sockets.
func Mute(pids []int) error {
	var errs []error
	for _, pid := range pids {
		errs = append(errs, mute(target.Living(pid)))
	}
	return errors.Join(errs...)
}

func mute(pid int) error {
	pidfd, err := target.Pidfd(pid)
	if err != nil {
		return ignoreGone(fmt.Errorf("open a pidfd of pid %d: %w", pid, err))
	}
	defer unix.Close(pidfd)
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return ignoreGone(err)
	}
	var errs []error
	for _, e := range list {
		if fd, err := strconv.Atoi(e.Name()); err == nil {
			errs = append(errs, muteOne(pidfd, pid, fd))
		}
	}
	return errors.Join(errs...)
}

// muteOne looks first at what kind of file it is, as undoOne does.
func muteOne(pidfd, pid, fd int) error {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return ignoreGone(err)
	}
	own, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return ignoreGone(fmt.Errorf("take descriptor %d of pid %d: %w", fd, pid, err))
	}
	defer unix.Close(own)
	if p, err := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || p != unix.IPPROTO_TCP || !hasMark(own) {
		return nil
	}
	if _, err := Enter(own); err != nil {
		return fmt.Errorf("pid %d: fd %d: %w", pid, fd, err)
	}
	return nil
}
