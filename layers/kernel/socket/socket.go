// SPDX-License-Identifier: Apache-2.0

// Package socket exports and imports sockets: pairs of connected unix sockets
// with what is unread in them, unix sockets that listen or wait for datagrams,
// listening TCP sockets, UDP, raw, ping, packet and netlink sockets. Options that
// differ from a new socket's travel with them.
//
// TCP connections whose two ends are in the container are carried whole: with
// their sequence numbers, queues and options, read and made in the kernel's
// repair mode (package tcprepair). The source is in that mode only while it is
// frozen. What is made is in that mode until the commit, so that nobody is told
// of an import that fails. See tcp_read.go, tcp_build.go, tcp_begin.go.
//
// What happens to the rest:
//   - A TCP connection to the outside is refused by name, since its peer is
//     elsewhere. With the option tcp=keep it is carried like the others, if the
//     copy's network has the same address: see tcp_outside.go. With the option tcp=close it is restored as a connection that
//     has ended: read(2) returns 0, write(2) fails with EPIPE (and SIGPIPE),
//     poll(2) reports POLLIN, POLLRDHUP and POLLHUP, getpeername(2) fails with
//     ENOTCONN. Servers close such a connection and their clients reconnect.
//   - Connections that a TCP listener has not accepted yet are made anew by
//     their client, if it is in the container and nothing was sent. In a move with
//     tcp=keep those from outside are handed on when the copy runs (tcp_waiting.go).
//     Others are refused; with tcp=close they are dropped with a warning: the client
//     is told by a reset and connects again.
//   - Of connections that have ended, or that only the kernel still ends, the other
//     host of a move learns the addresses: late segments are not answered there (late.go).
//   - Datagrams that wait in a UDP socket are received again (udp.go); those in
//     one that shares its port or is bound to a device, and those in raw and packet sockets,
//     are dropped with a warning, as a network may drop them.
//   - What is unread in a unix socket is sent again, with descriptors and
//     credentials that are on their way, when every description exists: see
//     messages.go, deliver.go. Connections that nobody has accepted are made anew.
//   - Unix connections keep the name of their listener; where the name cannot be
//     bound again they do without it.
//
// Sockets are made by the task itself: cgroup, network namespace and
// SO_PEERCRED are those of the container.
//
// Sources: unix(7), tcp(7), udp(7), ip(7), ipv6(7), socket(7), netlink(7),
// sock_diag(7).
package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Name is what the subsystem's records are called by.
const Name = "socket"

// Kinds of the subsystem's records, see spec/state/socket.proto.
const (
	KindSocket    = 1
	KindQueue     = 2
	KindSendQueue = 3
	KindMessages  = 4
	KindLost      = 5
)

// OptionTCP is the policy for TCP connections to the outside. An export refuses
// them without it, an import keeps what the image has.
const OptionTCP = "tcp"

// Values of OptionTCP.
const (
	TCPRefuse = "refuse"
	TCPClose  = "close"
	TCPKeep   = "keep"
)

// Subsystem is one event's sockets.
type Subsystem struct {
	env target.Env

	entities, bytes atomic.Uint64

	mu   sync.Mutex // guards what arrives
	in   map[uint64]*arrival
	held int // bytes of the queues in memory
	// rising and connecting are the TCP connections that begin to work, and to
	// connect, at the commit.
	rising     []*rising
	connecting []*connecting
	limits     map[int]uint32 // see bufferLimits
	kept       *kept          // nil: no connection to the outside
	play       player

	hold *hold // of an export; nil before it begins, and where nothing is held
	hush hush
}

// arrival is a socket of the image.
type arrival struct {
	msg      *state.Socket
	stream   []byte
	messages [][]byte
	senders  [][]byte // of the messages of a UDP socket
	send     []byte   // of a TCP connection: see KindSendQueue
	// unread is what is to be delivered with what came with it (deliver.go).
	unread []*state.SocketMessage
	// feeder is the other end, which is closed when all is delivered, as a
	// descriptor of the process that made the socket; -1: there is none.
	feeder int
	// hidden is the path that a name without a file has until then.
	hidden  string
	ended   bool // a connection that the policy ends
	builtBy record.ProcessID
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem { return &Subsystem{env: env, in: map[uint64]*arrival{}} }

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// SharedOnly reports that sockets are of no single process.
func (s *Subsystem) SharedOnly() bool { return true }

// Status counts sockets and unread bytes.
func (s *Subsystem) Status() record.Status {
	return record.Status{Entities: s.entities.Load(), Bytes: s.bytes.Load()}
}

// Fault cannot be served: every record exists once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("socket: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists what the import knows.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.in)) {
		a := s.in[id]
		fmt.Fprintf(w, "description %d: %v, %d bytes and %d messages unread, built by process %d\n",
			id, a.msg, len(a.stream), len(a.messages), a.builtBy)
	}
	return nil
}

// policy reads OptionTCP.
func policy(env target.Env, unset string) (string, error) {
	switch v := env.Options[OptionTCP]; v {
	case "":
		return unset, nil
	case TCPRefuse, TCPClose, TCPKeep:
		return v, nil
	default:
		return "", fmt.Errorf("option %s=%s is not known: %s, %s or %s", OptionTCP, v, TCPRefuse, TCPClose, TCPKeep)
	}
}
