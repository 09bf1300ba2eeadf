// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// refusal is something that cannot be carried: what it is, why, and a remedy.
type refusal struct{ what, why, remedy string }

func (r *refusal) Error() string { return r.what + ": " + r.why }

// again begins the remedy of what goes away by itself.
const again = "try again in a moment"

// passing: the program is about to change it.
func (r *refusal) passing() bool { return strings.HasPrefix(r.remedy, again) }

// Is lets errors.Is find record.ErrPassing.
func (r *refusal) Is(target error) bool { return target == record.ErrPassing && r.passing() }

// network is what the kernel tells about the sockets of one process's network
// namespace, and which of them the container's descriptors lead to.
type network struct {
	unix    map[uint32]*unixSocket
	netlink map[uint64]procfs.NetlinkSocket
	ours    map[uint64]bool // inodes
	policy  string          // see OptionTCP
	moves   bool            // to another host, now
	groups  *memberships    // nil until somebody asks
	tcp     *tcpTable
	// waiting are the listeners to which unix sockets have connected, by the
	// inodes of those, while nobody has accepted.
	waiting map[uint32]*unixSocket
	// blind: descriptors of the container are on their way in its sockets, and
	// nobody has looked at them yet (pre-flight).
	blind bool
	// fresh are the options of sockets as the namespace makes them, by family, type
	// and protocol.
	fresh map[[3]int][][]byte
	// silent tells whether connections can be kept silent, once it was asked.
	silent func() error
}

// look reads the namespace of a process.
func look(t procfs.Task, policy string, ours map[uint64]bool, tcp *tcpTable) (*network, error) {
	n := &network{netlink: map[uint64]procfs.NetlinkSocket{}, policy: policy, ours: ours, tcp: tcp,
		fresh: map[[3]int][][]byte{}, silent: sync.OnceValue(netdrop.Available)}
	err := target.InNamespace(t.Path("ns/net"), func() (err error) { n.unix, err = listUnix(); return err })
	if err != nil {
		return nil, err
	}
	n.waiting = map[uint32]*unixSocket{}
	for _, u := range n.unix {
		for _, client := range u.pending {
			n.waiting[client] = u
		}
	}
	list, err := t.NetlinkSockets()
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		n.netlink[s.Inode] = s
	}
	return n, nil
}

// protocol is the kernel's name of a socket's protocol (struct proto.name), read
// through the link of its descriptor: nothing is asked of the process.
func protocol(d *target.Descriptor) (string, error) {
	buf := make([]byte, 64)
	n, err := unix.Getxattr(d.Path(), "system.sockprotoname", buf)
	if err != nil {
		return "", fmt.Errorf("name of its protocol: %w", err)
	}
	return strings.TrimRight(string(buf[:n]), "\x00"), nil
}

// classify says how a socket is restored, or returns a *refusal. The pre-flight
// and the export decide by it alone.
func (n *network) classify(t procfs.Task, d *target.Descriptor) (state.SocketState, error) {
	name, err := protocol(d)
	if err != nil {
		return 0, err
	}
	what := name + " socket"
	switch name {
	case "UNIX", "UNIX-STREAM":
		return n.classifyUnix(d, what)
	case "TCP", "TCPv6":
		return n.classifyTCP(t, d)
	case "MPTCP", "MPTCPv6":
		return n.classifyMultipath(t, d)
	case "UDP", "UDPv6", "PING", "PINGv6", "RAW", "RAWv6":
		return state.SocketState_SOCKET_STATE_OPEN, nil
	case "NETLINK":
		return n.classifyNetlink(t, d)
	case "PACKET":
		return n.classifyPacket(t, d)
	}
	return 0, &refusal{what, "sockets of this protocol are not carried by this version", "close it before the checkpoint"}
}

func (n *network) classifyTCP(t procfs.Task, d *target.Descriptor) (state.SocketState, error) {
	c, err := connectionOf(d.Holder, d.FD)
	switch {
	case err != nil:
		return 0, err
	case c.state == stateClose: // not connected, or ended
		if c.ao {
			return 0, signedRefusal("TCP socket", "TCP-AO")
		}
		return state.SocketState_SOCKET_STATE_OPEN, nil
	}
	// Connections are not asked again when the container stands still.
	how, err := n.signature(t, &c)
	switch {
	case err != nil:
		return 0, err
	case how != "" && c.state == stateListen:
		return 0, signedRefusal(fmt.Sprintf("TCP listener %s", c.local), how)
	case how != "":
		return 0, signedRefusal(fmt.Sprintf("TCP connection %s to %s", c.local, c.remote), how)
	case c.state == stateListen:
		return n.classifyListener(t, &c)
	}
	return n.classifyConnection(t, &c)
}

// classifyListener: what waits to be accepted is carried where the client is in
// the container, too: it connects anew.
func (n *network) classifyListener(t procfs.Task, c *connection) (state.SocketState, error) {
	lost, err := n.unaccepted(t, c)
	if err != nil {
		return 0, err
	}
	if lost > 0 && n.policy != TCPClose && !n.carriesWaiting() {
		return 0, &refusal{
			fmt.Sprintf("TCP listener %s", c.local), fmt.Sprintf("%d connections wait to be accepted", lost),
			"try again in a moment, move with " + OptionTCP + "=" + TCPKeep + ", or choose " + OptionTCP + "=" + TCPClose + ": their clients find them reset and connect again",
		}
	}
	return state.SocketState_SOCKET_STATE_LISTENING, nil
}

// unaccepted counts the connections that wait for a listener and whose clients
// do not connect anew. Listeners that share a port are looked at together: who
// waits for which of them the kernel does not tell.
func (n *network) unaccepted(t procfs.Task, c *connection) (int, error) {
	if c.pending == 0 {
		return 0, nil
	}
	lost := n.tcp.pending[c.local.Port()]
	for e := range n.tcp.ends {
		if e.remote.Port() != c.local.Port() {
			continue
		}
		at, err := n.other(t, &connection{state: stateEstablished, local: e.local, remote: e.remote})
		if err != nil {
			return 0, err
		}
		if at == waiting || at == waitingFull { // the latter is refused by itself
			lost--
		}
	}
	return max(lost, 0), nil
}

func (n *network) classifyNetlink(t procfs.Task, d *target.Descriptor) (state.SocketState, error) {
	s, ok := n.netlink[d.Link.Inode]
	if !ok {
		// The kernel lists those only that have an address.
		var err error
		if s, err = unboundNetlink(d.Holder, d.FD); err != nil {
			return 0, err
		}
	}
	switch {
	case !carriedNetlink[uint32(s.Protocol)]:
		return 0, &refusal{"netlink socket", fmt.Sprintf("protocol %d is not carried by this version: its sockets may have state in the kernel that nobody tells", s.Protocol), "close it before the checkpoint"}
	case s.Rmem > 0 || s.Dump:
		return 0, &refusal{"netlink socket", "it has messages that were not read", "try again when the program has read them"}
	}
	return state.SocketState_SOCKET_STATE_OPEN, nil
}

// unboundNetlink asks a socket that is not listed.
func unboundNetlink(pid, fd int) (s procfs.NetlinkSocket, err error) {
	err = borrow(pid, fd, func(own int) error {
		name, err := unix.Getsockname(own)
		if err != nil {
			return fmt.Errorf("getsockname: %w", err)
		}
		if a, ok := name.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			return foreign("netlink socket")
		}
		p, err := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		s.Protocol = p
		return err
	})
	return s, err
}

// carriedNetlink are the protocols whose sockets have no state in the kernel
// beside their address, options and groups.
var carriedNetlink = map[uint32]bool{
	unix.NETLINK_ROUTE: true, unix.NETLINK_SOCK_DIAG: true, unix.NETLINK_XFRM: true, unix.NETLINK_SELINUX: true,
	unix.NETLINK_FIB_LOOKUP: true, unix.NETLINK_KOBJECT_UEVENT: true, unix.NETLINK_GENERIC: true,
}

func foreign(what string) *refusal {
	return &refusal{what, "it belongs to another network namespace than its process", "close it before the checkpoint"}
}

func (n *network) classifyUnix(d *target.Descriptor, what string) (state.SocketState, error) {
	u := n.unix[uint32(d.Link.Inode)]
	if u == nil {
		return 0, foreign(what)
	}
	if len(u.name) > 0 {
		what += " " + printable(u.name)
	}
	switch {
	case u.state == stateListen:
		return state.SocketState_SOCKET_STATE_LISTENING, n.checkPending(u, what)
	case !u.hasPeer:
		return state.SocketState_SOCKET_STATE_OPEN, nil
	case u.typ == unix.SOCK_DGRAM:
		return n.classifyDatagram(u, what)
	case u.peer == 0 && n.waiting[u.inode] != nil:
		return state.SocketState_SOCKET_STATE_CONNECTING, n.checkWaiting(d, n.waiting[u.inode], what)
	case u.peer == 0 && u.shutdown == 3:
		return state.SocketState_SOCKET_STATE_PAIR, nil // the other end is closed
	case u.peer == 0:
		return 0, &refusal{what, "its connection waits to be accepted", again}
	case !n.has(u.peer):
		return 0, &refusal{what, "it is connected to a process outside of the container", "end the connection before the checkpoint"}
	}
	return state.SocketState_SOCKET_STATE_PAIR, nil
}

// has: the container has the socket, or may have it on its way somewhere.
func (n *network) has(inode uint32) bool { return n.ours[uint64(inode)] || n.blind }

// checkPending: connections that nobody has accepted are made anew, in their
// order, by those who made them.
func (n *network) checkPending(u *unixSocket, what string) error {
	if int(u.received) > len(u.pending) {
		return &refusal{what, fmt.Sprintf("%d connections wait to be accepted, and the kernel tells of %d", u.received, len(u.pending)), again}
	}
	for _, client := range u.pending {
		switch {
		case client == 0:
			return &refusal{what, "a connection waits to be accepted that its client has closed: what was sent by it nobody can see before", again}
		case !n.has(client):
			return &refusal{what, "a connection from outside of the container waits to be accepted", again}
		}
	}
	return nil
}

// checkWaiting: nobody but who accepts a connection can see what was sent by it.
func (n *network) checkWaiting(d *target.Descriptor, listener *unixSocket, what string) error {
	if !n.has(listener.inode) {
		return &refusal{what, "it waits to be accepted by a process outside of the container", again}
	}
	return borrow(d.Holder, d.FD, func(own int) error {
		unread, err := unix.IoctlGetInt(own, unix.SIOCOUTQ)
		if err != nil {
			return fmt.Errorf("ioctl(SIOCOUTQ): %w", err)
		}
		if unread > 0 {
			return &refusal{what, "its connection waits to be accepted, and what was sent by it nobody can see before", again}
		}
		return nil
	})
}

// classifyDatagram: two that send to each other and have no names are a pair;
// a name can be connected to again.
func (n *network) classifyDatagram(u *unixSocket, what string) (state.SocketState, error) {
	peer := n.unix[u.peer]
	switch {
	case u.peer == 0 && len(u.name) > 0:
		return state.SocketState_SOCKET_STATE_OPEN, nil // its peer is closed
	case u.peer == 0:
		return state.SocketState_SOCKET_STATE_PAIR, nil
	case peer != nil && len(peer.name) > 0:
		return state.SocketState_SOCKET_STATE_CONNECTED, nil
	case peer == nil || peer.peer != u.inode || len(u.name) > 0:
		return 0, &refusal{what, "it sends to a socket without a name that does not send back", "close it before the checkpoint"}
	case !n.has(u.peer):
		return 0, &refusal{what, "it is connected to a process outside of the container", "end the connection before the checkpoint"}
	}
	return state.SocketState_SOCKET_STATE_PAIR, nil
}

// printable shows a unix socket's name: abstract ones begin with @.
func printable(name []byte) string {
	s := strings.TrimRight(string(name), "\x00")
	if len(name) > 0 && name[0] == 0 {
		s = "@" + string(name[1:])
	}
	return fmt.Sprintf("%q", s)
}

// isRefusal unwraps a refusal.
func isRefusal(err error) (*refusal, bool) {
	var r *refusal
	ok := errors.As(err, &r)
	return r, ok
}
