// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
)

// connection is a TCP socket's state and ends.
type connection struct {
	pending       uint32 // of a listener: connections that nobody has accepted
	state         uint8  // include/net/tcp_states.h
	local, remote netip.AddrPort
	ulp           string // see ulpOf
	ao            bool   // see hasAO
	sending       bool   // what was written is not all acknowledged
}

// connectionOf asks the socket itself, through a descriptor of our own for a
// moment. /proc/net/tcp knows it too, but reading it walks the whole hash table
// of the host's connections: milliseconds, while the container stands still.
func connectionOf(pid, fd int) (c connection, err error) {
	err = borrow(pid, fd, func(own int) error {
		info, err := unix.GetsockoptTCPInfo(own, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return fmt.Errorf("getsockopt(TCP_INFO): %w", err)
		}
		c.state = info.State
		c.sending = info.Unacked > 0 || info.Notsent_bytes > 0
		if info.State == stateListen {
			c.pending = info.Unacked // sk_ack_backlog (net/ipv4/tcp.c, tcp_get_info)
		}
		if a, err := unix.Getsockname(own); err == nil {
			c.local = addrPort(a)
		}
		if a, err := unix.Getpeername(own); err == nil {
			c.remote = addrPort(a)
		}
		c.ulp, c.ao = ulpOf(own), hasAO(own)
		return nil
	})
	return c, err
}

// borrow calls fn with a descriptor of our own for a socket of the process. It
// is the application's socket: fn may only ask.
func borrow(pid, fd int, fn func(own int) error) error {
	pidfd, err := target.Pidfd(pid)
	if err != nil {
		return fmt.Errorf("open a pidfd of pid %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	own, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return fmt.Errorf("take descriptor %d of pid %d: %w", fd, pid, err)
	}
	defer unix.Close(own)
	return fn(own)
}

// addrPort is the zero value for other families.
func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}
