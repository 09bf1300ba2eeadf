// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	addresses "github.com/io-mig/mig/spec/network"
	"github.com/io-mig/mig/spec/state"
)

// ends are the addresses of a TCP connection, seen from one of its sockets.
type ends struct{ local, remote netip.AddrPort }

// reversed is how the socket at the other end sees them.
func (e ends) reversed() ends { return ends{e.remote, e.local} }

// tcpTable are the TCP sockets that the container's descriptors lead to, by
// which the two ends of a connection within it find each other.
type tcpTable struct {
	seen map[uint64]bool // inodes
	ends map[ends]bool
	// pending counts by port what waits to be accepted by the listeners.
	pending map[uint16]int
	// mapping are the addresses that change.
	mapping addresses.Mapping
	// known are the connections by their inodes, as they were found.
	known map[uint64]connection
}

func newTCPTable() *tcpTable {
	return &tcpTable{seen: map[uint64]bool{}, ends: map[ends]bool{}, pending: map[uint16]int{}, known: map[uint64]connection{}}
}

// listens: the container has a listener on the port.
func (n *tcpTable) listens(port uint16) bool {
	_, ok := n.pending[port]
	return ok
}

// add notes the TCP sockets of a process.
func (n *tcpTable) add(t procfs.Task, list []target.Descriptor) error {
	for i := range list {
		d := &list[i]
		if d.Owner() != target.OwnerSocket || n.seen[d.Link.Inode] {
			continue
		}
		n.seen[d.Link.Inode] = true
		if name, err := protocol(d); err != nil || !strings.Contains(name, "TCP") {
			continue // whoever has to know what it is asks again
		}
		c, err := connectionOf(d.Holder, d.FD)
		if procfs.IsGone(err) || isOther(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("fd %d: %w", d.FD, err)
		}
		switch {
		case c.state == stateListen:
			n.pending[c.local.Port()] += int(c.pending)
		case c.remote.IsValid():
			n.known[d.Link.Inode] = c
			n.ends[ends{c.local, c.remote}] = true
		}
	}
	return nil
}

// otherEnd is where the other end of a TCP connection is.
type otherEnd int

const (
	// outside: on another host, in another network namespace, or a process of
	// this one that is not the container's.
	outside otherEnd = iota
	// inside: a descriptor of the container leads to it.
	inside
	// closed: its program has closed it, and all that it sent has arrived.
	closed
	// closing: its program has closed it, and the kernel still sends.
	closing
	// waiting: it waits to be accepted, and nothing was sent to it. waitingFull:
	// something was.
	waiting
	waitingFull
)

// other finds the other end. It must be called on any thread; the kernel is
// asked in the connection's network namespace.
func (n *network) other(t procfs.Task, c *connection) (otherEnd, error) {
	e := ends{c.local, c.remote}
	if n.tcp.ends[e.reversed()] {
		return inside, nil
	}
	if !ownAddress(e) {
		return outside, nil
	}
	var found *inetSocket
	err := target.InNamespace(t.Path("ns/net"), func() (err error) { found, err = findInet(e.reversed()); return err })
	switch {
	case err != nil:
		return 0, err
	case found == nil || found.state == stateTimeWait:
		if finReceived(c.state) {
			return closed, nil
		}
		return outside, nil
	case found.inode != 0:
		return outside, nil
	case found.state == stateEstablished || found.state == stateSynReceived || found.state == stateCloseWait:
		if !n.tcp.listens(e.remote.Port()) {
			return outside, nil // somebody else will accept it
		}
		if found.received > 0 || found.state != stateEstablished {
			return waitingFull, nil
		}
		return waiting, nil
	case !finReceived(c.state):
		return closing, nil
	}
	return closed, nil
}

// ownAddress: both ends are addresses of one host, for certain.
func ownAddress(e ends) bool {
	return e.remote.Addr() == e.local.Addr() || e.remote.Addr().IsLoopback()
}

// classifyConnection decides what becomes of a socket that is connected or is
// about to be.
func (n *network) classifyConnection(t procfs.Task, c *connection) (state.SocketState, error) {
	how, _, err := n.endsOf(t, c)
	return how, err
}

// endsOf is classifyConnection that also tells where the other end of a connection
// is.
func (n *network) endsOf(t procfs.Task, c *connection) (how state.SocketState, at otherEnd, err error) {
	at, err = n.other(t, c)
	if err == nil {
		how, err = n.decide(c, at)
	}
	return how, at, err
}

// decide is classifyConnection where the other end is known.
func (n *network) decide(c *connection, at otherEnd) (state.SocketState, error) {
	what := fmt.Sprintf("TCP connection %s to %s", c.local, c.remote)
	soon := again + ", or choose " + OptionTCP + "=" + TCPClose + ": the program finds it closed"
	if c.ulp != "" {
		return 0, &refusal{what, fmt.Sprintf("the kernel runs the protocol %q in it (TCP_ULP), which is not carried by this version", c.ulp), "end the connection before the checkpoint"}
	}
	switch c.state {
	case stateSynSent:
		return state.SocketState_SOCKET_STATE_CONNECTING, nil
	case stateEstablished, stateFinWait1, stateFinWait2, stateCloseWait, stateLastAck, stateClosing:
	default:
		return 0, &refusal{what, fmt.Sprintf("it is in a state that is not carried (%d)", c.state), soon}
	}
	switch {
	case at == inside || at == closed:
		return state.SocketState_SOCKET_STATE_CONNECTION, n.keepsAddress(c.local, c.remote)
	case at == waiting && c.state == stateEstablished && !c.sending:
		return state.SocketState_SOCKET_STATE_CONNECTING, nil
	case n.policy == TCPClose:
		return state.SocketState_SOCKET_STATE_CLOSED, nil
	case at == waiting || at == waitingFull:
		return 0, &refusal{what, "its other end waits to be accepted, and data were sent to it", soon}
	case at == closing:
		return 0, &refusal{what, "its other end was closed by its program, and what that had written is still on its way", soon}
	}
	if n.policy == TCPKeep {
		err := n.canKeep(what)
		if err == nil {
			err = n.keepsAddress(c.local, c.remote)
		}
		return state.SocketState_SOCKET_STATE_CONNECTION, err
	}
	return 0, &refusal{
		what, "its other end is outside of the container",
		"let the clients disconnect, or choose " + OptionTCP + "=" + TCPKeep + " if the copy will have the same address, or " +
			OptionTCP + "=" + TCPClose + ": they find it closed and connect again",
	}
}

// finReceived: in these states the other end has ended its stream.
func finReceived(s uint8) bool {
	return s == stateCloseWait || s == stateLastAck || s == stateClosing
}

// finSent: in these states this end has.
func finSent(s uint8) bool {
	return s == stateFinWait1 || s == stateFinWait2 || s == stateLastAck || s == stateClosing
}

// ulpOf names what runs in a connection (kernel TLS), empty for nothing.
func ulpOf(fd int) string {
	b, err := get(fd, unix.IPPROTO_TCP, unix.TCP_ULP, 16)
	if err != nil {
		return ""
	}
	return string(cut(b))
}
