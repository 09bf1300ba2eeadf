// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/packet"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// A connection to the outside moves while its other end knows of nothing. From
// the moment that it is read it must not receive anything, or what it had
// acknowledged would be lost, and nobody may be told of its end:
//
//	source       deaf (tcprepair.Mark), read ......... | dropped, silent, killed
//	                                                     |
//	destination  dropped, made ... COMMIT, repair mode ended ... let through
//
// "dropped" is netdrop: the network namespace does not answer for a connection
// whose socket is not there. Deafness loses nothing, since what is not
// acknowledged is sent again; if the source is to run on it is taken away. The
// drop stays where the source was, until a copy in the same namespace takes the
// connection up, or the namespace ends.

// canKeep: the kernel has what it takes.
func (n *network) canKeep(what string) error {
	if err := n.silent(); err != nil {
		return &refusal{what, fmt.Sprintf("it cannot be kept silent: %v", err), "choose " + OptionTCP + "=" + TCPClose}
	}
	return nil
}

// arriving is the connection as netdrop names it.
func (e ends) arriving() netdrop.Connection {
	return netdrop.Connection{Source: e.remote, Destination: e.local}
}

// outsideOf is what an import does with a connection to the outside as soon as
// it knows of it: by the policy it is kept, ended or refused.
func (s *Subsystem) outsideOf(a *arrival) error {
	m := a.msg
	if m.Tcp == nil || !m.Tcp.Outside {
		return nil
	}
	p, err := policy(s.env, TCPKeep)
	if err != nil {
		return err
	}
	switch p {
	case TCPRefuse:
		return fmt.Errorf("a TCP connection to the outside (%s), which the option %s=%s refuses", summary(m), OptionTCP, TCPRefuse)
	case TCPClose:
		m.State, m.Tcp, m.Local, m.Remote = state.SocketState_SOCKET_STATE_CLOSED, nil, nil, nil
		m.Option = nil
		a.ended = true
		return nil
	}
	e := ends{endpoint(m.Family, m.Local), endpoint(m.Family, m.Remote)}
	if !e.local.IsValid() || !e.remote.IsValid() || e.local.Addr().Is4() != e.remote.Addr().Is4() {
		return fmt.Errorf("a TCP connection between addresses of %d and %d bytes", len(m.Local), len(m.Remote))
	}
	if s.env.Frame == nil {
		return nil // a test of the decoder
	}
	return s.expect(e)
}

// expect has what arrives for a connection dropped until the commit. It is nobody
// else's: an image cannot silence others in a namespace that the container
// shares.
func (s *Subsystem) expect(e ends) error {
	err := s.beginKept()
	if err == nil {
		s.kept.all = append(s.kept.all, e.arriving())
	}
	return err
}

func (s *Subsystem) beginKept() error {
	if s.kept != nil {
		return nil
	}
	net, err := os.Open(s.env.Frame.Task(target.FirstTask).Proc.Path("ns/net"))
	if err != nil {
		return fmt.Errorf("network namespace of the frame: %w", err)
	}
	s.kept = &kept{net: net}
	s.env.Frame.AtFailure(s.kept.giveUp)
	return nil
}

// waitingOf has what arrives for connections that nobody has accepted dropped until
// the source hands them on (tcp_waiting.go).
func (s *Subsystem) waitingOf(m *state.Socket) error {
	for _, w := range m.Waiting {
		e, err := decodeEnds(w)
		if err != nil {
			return err
		}
		if s.env.Frame == nil {
			continue // a test of the decoder
		}
		if s.env.Peer == nil || e.local.Port() != endpoint(m.Family, m.Local).Port() {
			return fmt.Errorf("a connection %s to %s, which nobody hands on, waits for the listener %s", e.local, e.remote, endpoint(m.Family, m.Local))
		}
		if err := s.beginKept(); err != nil {
			return err
		}
		s.kept.waiting = append(s.kept.waiting, e.arriving())
	}
	return nil
}

// silence begins the drop, before the first socket is made. Copies of what is dropped
// are taken: what others send to a copy that was announced, and acknowledgments of what
// it transmits, come before the end of the drop.
func (k *kept) silence() error {
	if k == nil {
		return nil
	}
	return k.in(func() (err error) {
		if k.capture, err = packet.Open(); err != nil {
			return err
		}
		silent := slices.Concat(k.all, k.waiting)
		for _, c := range silent {
			other, err := findInet(ends{c.Destination, c.Source})
			if err != nil {
				return err
			}
			if other != nil && other.inode != 0 {
				return fmt.Errorf("TCP connection %s to %s: somebody in this network has it", c.Destination, c.Source)
			}
		}
		added, err := netdrop.Drop(netdrop.Silence{Connections: silent})
		k.added = added.Connections
		return err
	})
}

// kept are the connections to the outside of an import, of which nothing is let
// in before the commit.
type kept struct {
	net     *os.File        // network namespace
	capture *packet.Capture // nil when it was read
	// all are dropped; added were not dropped before.
	all, added []netdrop.Connection
	// waiting are dropped until the source has handed them on.
	waiting []netdrop.Connection
}

func (k *kept) in(fn func() error) error {
	return target.InNamespaceFD(int(k.net.Fd()), "net", fn)
}

// letThrough ends the drop, when every connection has its socket.
func (k *kept) letThrough() error {
	if k == nil {
		return nil
	}
	return errors.Join(k.in(func() error { return netdrop.Pass(netdrop.Silence{Connections: k.all}) }), k.net.Close())
}

// giveUp leaves the namespace as it was before a failed import: a source that was
// here has dropped its connections itself, and another import may take them up.
func (k *kept) giveUp() error {
	if k.capture != nil {
		_ = k.capture.Close()
	}
	return errors.Join(k.in(func() error { return netdrop.Pass(netdrop.Silence{Connections: k.added}) }), k.net.Close())
}

// held are the packets that came while the connections were silent.
func (k *kept) held() (list [][]byte, err error) {
	if k == nil || k.capture == nil {
		return nil, nil
	}
	for {
		p, ok, err := k.capture.Read()
		if err != nil || !ok {
			err = errors.Join(err, k.capture.Close())
			k.capture = nil
			return list, err
		}
		list = append(list, p.Data)
	}
}

// longestAway bounds for how long a connection counts as having been away. It is
// told by the clocks of two hosts, which need not agree: a stamp that jumps by their
// difference spoils the measured time of a round trip, and one that jumps by 2^31
// units, which are 36 minutes in microseconds, goes back.
const longestAway = time.Second

// now is the time stamp that the connection would have by now, had it not been
// away: one that goes back would be taken for one of an old segment (PAWS, RFC
// 7323). One that stands still would not: nothing was sent since it was read.
func (r *rising) now() uint32 {
	t := r.msg.Tcp
	away := min(time.Since(time.Unix(0, t.ReadAt)), longestAway)
	if t.ReadAt == 0 || away < 0 {
		return t.Timestamp
	}
	// The lowest bit tells of microseconds (net/ipv4/tcp.c), else they are
	// milliseconds.
	if t.Timestamp&1 != 0 {
		return (t.Timestamp + uint32(away.Microseconds())) | 1
	}
	return (t.Timestamp + uint32(away.Milliseconds())) &^ 1
}
