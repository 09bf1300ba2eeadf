// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Moved is how many bytes of the stream have gone over its connections, both
// ways: those that the peer's kernel has acknowledged and those that have come
// from it (tcpi_bytes_acked and tcpi_bytes_received of tcp(7), TCP_INFO). What
// waits in a buffer of this host does not count, nor do probes of an idle
// connection. Connections that are no TCP count nothing, nor do closed ones.
func (c *core) Moved() (sum uint64) {
	for _, conn := range c.conns {
		sum += moved(conn)
	}
	return sum
}

func moved(conn net.Conn) uint64 {
	for {
		over, ok := conn.(interface{ NetConn() net.Conn }) // TLS, and what lies beneath it
		if !ok {
			break
		}
		conn = over.NetConn()
	}
	s, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	var sum uint64
	_ = raw.Control(func(fd uintptr) { // an error: it is closed
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			sum = info.Bytes_acked + info.Bytes_received
		}
	})
	return sum
}
