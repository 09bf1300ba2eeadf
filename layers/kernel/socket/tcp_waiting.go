// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tcprepair"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Connections from outside that a listener's program has not accepted have no
// descriptor by which anybody could read them; who accepts them takes them out of the
// queue, and a source that runs on after a move that failed would miss them. So the
// image only tells of their addresses, for which the copy's network is silent. When
// the copy runs, and the source never will again, they are accepted there, read, and
// sent after it (verbWaiting); the copy's kernel is led to put them into the queue of
// its listener (tcp_queue.go).

// verbWaiting is the command by which the source hands on one connection
// (state.WaitingConnection), or without a body says that there is no other.
const verbWaiting = "waiting"

// maxWaiting bounds what was received by one connection, in bytes: a command holds
// no more.
const maxWaiting = maxCommand - 4<<10

// queue is a TCP listener of the container.
type queue struct {
	process    *target.Process
	descriptor *target.Descriptor
}

// carriesWaiting: see above.
func (n *network) carriesWaiting() bool { return n.moves && n.policy == TCPKeep && n.silent() == nil }

// isListeningTCP: connections may wait for it.
func isListeningTCP(m *state.Socket) bool {
	return m.Type == unix.SOCK_STREAM && m.Family != unix.AF_UNIX && m.State == state.SocketState_SOCKET_STATE_LISTENING
}

// waitAt notes a listener and tells of the connections that wait for it, those
// from within the container apart.
func (x *exporter) waitAt(p *target.Process, d *target.Descriptor, port uint16) (list []*state.WaitingEnds, err error) {
	x.queues = append(x.queues, queue{p, d})
	all, err := x.inetSockets(p)
	for _, s := range all {
		e := ends{s.local, s.remote}
		if isWaiting(s) && s.local.Port() == port && !x.tcp.ends[e.reversed()] && !slices.Contains(x.waiting, e) {
			x.waiting = append(x.waiting, e)
			list = append(list, encodeEnds(e))
		}
	}
	return list, err
}

// inetSockets are the TCP connections of a process's network namespace, but for those in
// TIME_WAIT. They are asked for once: the kernel walks through all of the host's.
func (x *exporter) inetSockets(p *target.Process) ([]*inetSocket, error) {
	ns, err := p.Proc.Namespace("net")
	if err != nil {
		return nil, err
	}
	list, known := x.sockets[ns.Inode]
	if !known {
		err = target.InNamespace(p.Proc.Path("ns/net"), func() error {
			return eachInet(begunStates, func(s *inetSocket) { list = append(list, s) })
		})
		x.sockets[ns.Inode] = list
	}
	return list, err
}

// waitingStates are those of connections that have not ended.
const waitingStates = 1<<stateEstablished | 1<<stateCloseWait

// isWaiting: it waits to be accepted.
func isWaiting(s *inetSocket) bool { return s.inode == 0 && 1<<s.state&waitingStates != 0 }

// eachWaiting tells of the TCP connections of the thread's network namespace that
// wait to be accepted.
func eachWaiting(fn func(*inetSocket)) error {
	return eachInet(waitingStates, func(s *inetSocket) {
		if isWaiting(s) {
			fn(s)
		}
	})
}

func encodeEnds(e ends) *state.WaitingEnds {
	b := func(a netip.AddrPort) []byte {
		return binary.BigEndian.AppendUint16(a.Addr().Unmap().AsSlice(), a.Port())
	}
	return &state.WaitingEnds{Local: b(e.local), Remote: b(e.remote)}
}

func decodeEnds(m *state.WaitingEnds) (e ends, err error) {
	address := func(b []byte) netip.AddrPort {
		if len(b) != 4+2 && len(b) != 16+2 {
			return netip.AddrPort{}
		}
		a, _ := netip.AddrFromSlice(b[:len(b)-2])
		return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[len(b)-2:]))
	}
	e = ends{address(m.GetLocal()), address(m.GetRemote())}
	if !e.local.IsValid() || !e.remote.IsValid() || e.local.Addr().Is4() != e.remote.Addr().Is4() || e.local.Port() == 0 || e.remote.Port() == 0 {
		return e, fmt.Errorf("a connection between addresses of %d and %d bytes waits to be accepted", len(m.GetLocal()), len(m.GetRemote()))
	}
	return e, nil
}

// handOn has what waits sent after the copy when it runs.
func (x *exporter) handOn() {
	if len(x.queues) == 0 || x.hold == nil || x.env.Peer == nil {
		return
	}
	x.env.Source.BeforeKill(func() error {
		net, err := os.Open(procfs.Host().Process(x.env.Source.Init).Path("ns/net"))
		if err != nil {
			return fmt.Errorf("network namespace of the container: %w", err)
		}
		defer net.Close()
		err = target.InNamespaceFD(int(net.Fd()), "net", x.handOnAll)
		if err != nil {
			slog.Warn("connections that nobody has accepted are lost", "error", err)
		}
		return nil
	})
}

// handOnAll is called in the container's network namespace.
func (x *exporter) handOnAll() error {
	var silent []netdrop.Connection
	err := eachWaiting(func(s *inetSocket) {
		if x.tcp.listens(s.local.Port()) {
			silent = append(silent, ends{s.local, s.remote}.arriving())
		}
	})
	if err != nil {
		return err
	}
	if len(silent) == 0 && len(x.waiting) == 0 {
		return nil
	}
	x.hold.hear(silent) // goes after the copy, too
	if _, err := netdrop.Drop(netdrop.Silence{Connections: silent}); err != nil {
		return err
	}
	var errs []error
	for _, q := range x.queues {
		errs = append(errs, x.acceptAll(q))
	}
	return errors.Join(append(errs, x.sendWaiting(nil))...)
}

// sendWaiting hands on one connection; nil: there is no other.
func (x *exporter) sendWaiting(w *state.WaitingConnection) error {
	var body []byte
	if w != nil {
		var err error
		if body, err = proto.Marshal(w); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), forwardPatience)
	defer cancel()
	_, err := x.env.Peer.Command(ctx, record.Command{To: Name, Verb: verbWaiting, Body: body})
	return err
}

// acceptAll takes what waits for one listener, in its order.
func (x *exporter) acceptAll(q queue) error {
	own, err := q.process.Open(q.descriptor)
	if err != nil {
		return err
	}
	defer own.Close()
	fd := int(own.Fd())
	// Nobody waits for the listener any more.
	if err := unix.SetNonblock(fd, true); err != nil {
		return os.NewSyscallError("fcntl(O_NONBLOCK)", err)
	}
	var errs []error
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return errors.Join(errs...)
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			return errors.Join(append(errs, os.NewSyscallError("accept", err))...)
		}
		errs = append(errs, x.sendAccepted(c))
	}
}

// sendAccepted reads a connection, hands it on and ends it without a word.
func (x *exporter) sendAccepted(fd int) error {
	defer unix.Close(fd)
	if _, err := tcprepair.Enter(fd); err != nil { // of MPTCP, for one
		return err
	}
	local, err1 := unix.Getsockname(fd)
	remote, err2 := unix.Getpeername(fd)
	if err := errors.Join(err1, err2); err != nil {
		return os.NewSyscallError("getpeername", err) // reset by its client
	}
	e := ends{addrPort(local), addrPort(remote)}
	if x.tcp.ends[e.reversed()] {
		return nil // its client is in the container, and connects anew
	}
	t, err := readTCP(fd)
	if err == nil {
		_, err = tcprepair.Enter(fd) // readTCP has ended it
	}
	if err == nil && len(t.receive) > maxWaiting {
		err = fmt.Errorf("it has %d bytes unread", len(t.receive))
	}
	if err == nil {
		err = x.sendWaiting(&state.WaitingConnection{Ends: encodeEnds(e), Tcp: t.msg, Received: t.receive})
	}
	if err != nil {
		return fmt.Errorf("TCP connection %s to %s: %w", e.local, e.remote, err)
	}
	return nil
}
