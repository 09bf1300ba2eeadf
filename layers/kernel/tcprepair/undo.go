// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tcprepair

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/target"
)

// Undo ends repair mode and the mark of every TCP socket that the processes
// have, and the silence of their network namespace about them and about the ports
// at which the processes listen, and tells of how many connections. It is for the supervisor of an engine that died:
// the container must be frozen, or its program would find a connection that it
// cannot read from. A process that is gone has no sockets.
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
	pid = target.Living(pid)
	var silent netdrop.Silence
	err = eachSocket(pid, func(own int) error {
		was, err := undoOne(own, &silent)
		if was {
			undone++
		}
		return err
	})
	if !silent.Empty() {
		// The engine may have come as far as to end the container.
		path := fmt.Sprintf("/proc/%d/ns/net", pid)
		err = errors.Join(err, ignoreGone(target.InNamespace(path, func() error { return netdrop.Pass(silent) })))
	}
	return undone, err
}

// eachSocket calls fn with a duplicate of each socket of a process, which may be gone. It
// looks at what kind of file a descriptor is before it takes it: a duplicate of a device
// or a pipe could be missed by whoever waits for its end.
func eachSocket(pid int, fn func(own int) error) error {
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
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
			errs = append(errs, ignoreGone(err))
			continue
		}
		own, err := unix.PidfdGetfd(pidfd, fd, 0)
		if err != nil {
			errs = append(errs, ignoreGone(fmt.Errorf("take descriptor %d of pid %d: %w", fd, pid, err)))
			continue
		}
		if err := fn(own); err != nil {
			errs = append(errs, fmt.Errorf("pid %d: fd %d: %w", pid, fd, err))
		}
		unix.Close(own)
	}
	return errors.Join(errs...)
}

// arriving is the connection as netdrop names it.
func arriving(fd int) (c netdrop.Connection, ok bool) {
	local, err1 := unix.Getsockname(fd)
	remote, err2 := unix.Getpeername(fd)
	if err1 != nil || err2 != nil {
		return c, false
	}
	c = netdrop.Connection{Source: address(remote), Destination: address(local)}
	return c, c.Source.IsValid() && c.Destination.IsValid()
}

func address(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// undoOne notes in silent what is to be let through for a socket.
func undoOne(own int, silent *netdrop.Silence) (was bool, err error) {
	p, err := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	name, nameErr := unix.Getsockname(own)
	switch {
	case err != nil || nameErr != nil:
		return false, nil
	case p == unix.IPPROTO_UDP:
		silent.Datagrams = append(silent.Datagrams, address(name).Port())
		return false, nil
	case p != unix.IPPROTO_TCP && p != unix.IPPROTO_MPTCP: // by which servers in Go listen
		return false, nil
	}
	if n, err := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && n != 0 {
		silent.Listeners = append(silent.Listeners, address(name).Port())
		return false, nil
	}
	if p == unix.IPPROTO_MPTCP {
		return false, nil // a connection of it is never in repair mode
	}
	if c, ok := arriving(own); ok && hasMark(own) {
		silent.Connections = append(silent.Connections, c)
	}
	if was, err = Unmark(own); err != nil {
		return was, fmt.Errorf("end repair mode: %w", err)
	}
	return was, nil
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
