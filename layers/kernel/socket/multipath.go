// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// classifyMultipath: what listens for MPTCP, as every server of Go 1.24 and newer
// does, is a listener like any other one. For a client that does not ask for MPTCP
// accept(2) returns a TCP socket, whose file has the listener's name (net/mptcp/
// protocol.c, mptcp_stream_accept; net/socket.c, do_accept). So servers seldom have
// connections of that kind. Their subflows are the kernel's, and nobody can read or
// set them.
func (n *network) classifyMultipath(t procfs.Task, d *target.Descriptor) (state.SocketState, error) {
	protocol := 0
	err := borrow(d.Holder, d.FD, func(own int) (err error) {
		protocol, err = unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case protocol == unix.IPPROTO_TCP:
		return n.classifyTCP(t, d)
	}
	// Asked for its state, the socket answers with that of its first subflow.
	c, err := connectionOf(d.Holder, d.FD)
	switch {
	case err != nil:
		return 0, err
	case c.state == stateListen:
		return n.classifyListener(t, &c)
	case c.state == stateClose:
		return state.SocketState_SOCKET_STATE_OPEN, nil
	}
	return 0, &refusal{
		fmt.Sprintf("MPTCP connection %s to %s", c.local, c.remote), "the kernel does not give the state of its subflows away",
		"end it, or have the program use TCP (GODEBUG=multipathtcp=0 for one written in Go)",
	}
}

// multipath is the protocol to make a socket of: TCP, to which MPTCP falls back by
// itself, where the task's network does not have MPTCP (net.mptcp.enabled,
// CONFIG_MPTCP).
func (b *builder) multipath(m *state.Socket) (uint32, error) {
	if m.Protocol != unix.IPPROTO_MPTCP {
		return m.Protocol, nil
	}
	protocol := uint32(unix.IPPROTO_MPTCP)
	err := target.InNamespace(b.task.Proc.Path("ns/net"), func() error {
		fd, err := unix.Socket(int(m.Family), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
		switch err {
		case nil:
			return unix.Close(fd)
		case unix.EPROTONOSUPPORT, unix.ENOPROTOOPT:
			protocol = unix.IPPROTO_TCP
			return nil
		}
		return err
	})
	return protocol, err
}
