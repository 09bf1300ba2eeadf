// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// maxHeld bounds the unread data of all sockets together.
const maxHeld = 256 << 20

// kinds of socket that may be made, with the lengths of their addresses behind
// sa_family: 14 bytes of sockaddr_in, 26 of sockaddr_in6, 10 of sockaddr_nl, up
// to 108 of sockaddr_un.
var kinds = map[[2]uint32]struct{ min, max int }{
	{unix.AF_UNIX, unix.SOCK_STREAM}:    {1, 108},
	{unix.AF_UNIX, unix.SOCK_DGRAM}:     {1, 108},
	{unix.AF_UNIX, unix.SOCK_SEQPACKET}: {1, 108},
	{unix.AF_INET, unix.SOCK_STREAM}:    {14, 14},
	{unix.AF_INET, unix.SOCK_DGRAM}:     {14, 14},
	{unix.AF_INET6, unix.SOCK_STREAM}:   {26, 26},
	{unix.AF_INET6, unix.SOCK_DGRAM}:    {26, 26},
	{unix.AF_INET, unix.SOCK_RAW}:       {14, 14},
	{unix.AF_INET6, unix.SOCK_RAW}:      {26, 26},
	{unix.AF_PACKET, unix.SOCK_RAW}:     {0, 0}, // see checkPacket
	{unix.AF_PACKET, unix.SOCK_DGRAM}:   {0, 0},
	{unix.AF_NETLINK, unix.SOCK_RAW}:    {10, 10},
	{unix.AF_NETLINK, unix.SOCK_DGRAM}:  {10, 10},
}

func decodeSocket(r *record.Record) (*state.Socket, error) {
	m := &state.Socket{}
	if err := proto.Unmarshal(r.Payload, m); err != nil {
		return nil, err
	}
	if r.Entity == 0 || r.Entity >= 1<<(64-queueShift) {
		return nil, errors.New("descriptions are numbered from 1")
	}
	kind, ok := kinds[[2]uint32{m.Family, m.Type}]
	if !ok || !protocolAllowed(m) {
		return nil, fmt.Errorf("a socket of family %d, type %d, protocol %d cannot be made", m.Family, m.Type, m.Protocol)
	}
	for _, a := range [][]byte{m.Local, m.Remote} {
		if len(a) != 0 && (len(a) < kind.min || len(a) > kind.max) {
			return nil, fmt.Errorf("address of %d bytes for family %d", len(a), m.Family)
		}
	}
	if m.Flags&^uint32(socketFlags) != 0 || m.Shutdown > 3 || m.Backlog > math.MaxInt32 {
		return nil, fmt.Errorf("flags %#o, shutdown %d, backlog %d", m.Flags, m.Shutdown, m.Backlog)
	}
	return m, errors.Join(checkState(m), checkTCP(m), checkFilter(m), checkMemberships(m), checkPacket(m), checkFile(m), checkOptions(m))
}

func protocolAllowed(m *state.Socket) bool {
	switch m.Family {
	case unix.AF_UNIX, unix.AF_PACKET:
		return m.Protocol == 0
	case unix.AF_NETLINK:
		return carriedNetlink[m.Protocol]
	}
	switch m.Type {
	case unix.SOCK_STREAM:
		return m.Protocol == unix.IPPROTO_TCP || m.Protocol == unix.IPPROTO_MPTCP
	case unix.SOCK_RAW:
		return m.Protocol > 0 && m.Protocol <= unix.IPPROTO_RAW
	}
	ping := uint32(unix.IPPROTO_ICMP)
	if m.Family == unix.AF_INET6 {
		ping = unix.IPPROTO_ICMPV6
	}
	return m.Protocol == unix.IPPROTO_UDP || m.Protocol == ping
}

// checkState: not every kind of socket has every state.
func checkState(m *state.Socket) error {
	isUnix, stream := m.Family == unix.AF_UNIX, m.Type == unix.SOCK_STREAM
	isTCP := stream && (m.Family == unix.AF_INET || m.Family == unix.AF_INET6)
	isRaw := m.Type == unix.SOCK_RAW
	ok := false
	switch m.State {
	case state.SocketState_SOCKET_STATE_OPEN:
		ok = true
	case state.SocketState_SOCKET_STATE_LISTENING:
		ok = len(m.Local) > 0 && (stream || isUnix && m.Type == unix.SOCK_SEQPACKET)
	case state.SocketState_SOCKET_STATE_PAIR:
		ok = isUnix && (len(m.Local) == 0 || m.Type != unix.SOCK_DGRAM)
	case state.SocketState_SOCKET_STATE_CONNECTED:
		ok = (m.Type == unix.SOCK_DGRAM || isRaw) && m.Family != unix.AF_NETLINK && len(m.Remote) > 0
	case state.SocketState_SOCKET_STATE_CLOSED:
		ok = isTCP
	case state.SocketState_SOCKET_STATE_CONNECTION:
		ok = isTCP && m.Protocol == unix.IPPROTO_TCP && len(m.Local) > 0 && len(m.Remote) > 0
	case state.SocketState_SOCKET_STATE_CONNECTING:
		ok = isTCP && m.Protocol == unix.IPPROTO_TCP && len(m.Remote) > 0 || isUnix && m.Type != unix.SOCK_DGRAM && m.Peer != 0
	}
	if !ok {
		return fmt.Errorf("a socket of family %d, type %d cannot be %s", m.Family, m.Type, m.State)
	}
	if len(m.Pending) > 0 && (!isUnix || m.State != state.SocketState_SOCKET_STATE_LISTENING || uint64(len(m.Pending)) > uint64(m.Backlog)+1 || m.File.GetUnlinked()) {
		return fmt.Errorf("%d connections wait for a socket that is %s", len(m.Pending), m.State)
	}
	if len(m.Waiting) > 0 && (!isTCP || m.State != state.SocketState_SOCKET_STATE_LISTENING || uint64(len(m.Waiting)) > uint64(m.Backlog)+1) {
		return fmt.Errorf("%d connections wait for a socket that is %s with room for %d", len(m.Waiting), m.State, m.Backlog)
	}
	if len(m.Group) > 0 && m.Family != unix.AF_NETLINK || len(m.Group) > 512 {
		return fmt.Errorf("%d groups for family %d", len(m.Group), m.Family)
	}
	return nil
}

// maxScale is the largest shift of a window (RFC 7323).
const maxScale = 14

// checkTCP: a connection, and nothing else, has the state of one.
func checkTCP(m *state.Socket) error {
	t := m.Tcp
	if (t != nil) != (m.State == state.SocketState_SOCKET_STATE_CONNECTION) {
		return errors.New("a socket and its state of TCP do not fit each other")
	}
	if t == nil {
		return nil
	}
	if t.Mss == 0 || t.Mss > math.MaxUint16 || t.SendScale > maxScale || t.ReceiveScale > maxScale || t.Window == nil ||
		t.SendBuffer > math.MaxInt32 || t.ReceiveBuffer > math.MaxInt32 || t.ReceiveEnded && t.ReceiveShut ||
		t.Outside && m.Peer != 0 {
		return fmt.Errorf("TCP connection with %v", t)
	}
	return nil
}

// maxFilter is BPF_MAXINSNS of include/uapi/linux/bpf_common.h, in bytes.
const maxFilter = 4096 * 8

// checkFilter: what the instructions mean is the kernel's to check.
func checkFilter(m *state.Socket) error {
	if len(m.Filter) > maxFilter || len(m.Filter)%8 != 0 || m.PeekOffset > math.MaxInt32 {
		return fmt.Errorf("packet filter of %d bytes, SO_PEEK_OFF %d", len(m.Filter), m.PeekOffset)
	}
	return nil
}

// Limits of memberships: far above those of the kernel for one socket
// (/proc/sys/net/ipv4/igmp_max_memberships, igmp_max_msf).
const (
	maxMemberships = 1024
	maxSources     = 512
)

func checkMemberships(m *state.Socket) error {
	if len(m.Membership) > maxMemberships {
		return fmt.Errorf("%d memberships", len(m.Membership))
	}
	for _, g := range m.Membership {
		size := len(g.Group)
		ok := (m.Family == unix.AF_INET && size == 4 || m.Family == unix.AF_INET6 && (size == 4 || size == 16)) &&
			m.Type != unix.SOCK_STREAM && len(g.Source) <= maxSources && isInterfaceName(g.Interface)
		for _, s := range g.Source {
			ok = ok && len(s) == size
		}
		if !ok {
			return fmt.Errorf("member of a group of %d bytes on interface %q", size, g.Interface)
		}
	}
	return nil
}

// checkFile: a name in the file system comes with its file, and only it.
func checkFile(m *state.Socket) error {
	named := m.Family == unix.AF_UNIX && len(m.Local) > 0 && m.Local[0] != 0
	if named != (m.File != nil) {
		return errors.New("a socket's file and its name do not fit each other")
	}
	if m.File == nil {
		return nil
	}
	name := strings.TrimRight(string(m.Local), "\x00")
	f := m.File
	switch {
	case strings.ContainsRune(name, 0) || f.Mode > 0o7777:
		return fmt.Errorf("name %q, mode %#o", name, f.Mode)
	case (f.Directory == "") != strings.HasPrefix(name, "/"):
		return fmt.Errorf("name %q and directory %q", name, f.Directory)
	case f.Directory != "" && (!strings.HasPrefix(f.Directory, "/") || len(f.Directory) > 4095 || strings.ContainsRune(f.Directory, 0)):
		return fmt.Errorf("directory %q", f.Directory)
	}
	return nil
}

// checkOptions lets only those pass that the export reads.
func checkOptions(m *state.Socket) error {
	if len(m.Option) > len(table)+len(buffers) {
		return fmt.Errorf("%d options", len(m.Option))
	}
	for _, o := range m.Option {
		if o.Level > math.MaxInt32 || o.Name > math.MaxInt32 {
			return fmt.Errorf("option %d of level %d", o.Name, o.Level)
		}
		t := lookUp(int(o.Level), int(o.Name), int(m.Family), int(m.Type))
		if t == nil || len(o.Value) > t.size || !t.text && len(o.Value) != t.size {
			return fmt.Errorf("option %d of level %d with %d bytes is not one that is carried", o.Name, o.Level, len(o.Value))
		}
	}
	return nil
}

// mayHold: pairs, connections and UDP sockets have unread data, connections also
// what was not acknowledged.
func mayHold(m *state.Socket, kind uint32) bool {
	return m.State == state.SocketState_SOCKET_STATE_CONNECTION || kind == KindQueue && (m.State == state.SocketState_SOCKET_STATE_PAIR || isUDP(m))
}

// mayReceive: messages may wait in a unix socket.
func mayReceive(m *state.Socket) bool {
	return m.Family == unix.AF_UNIX && (m.State == state.SocketState_SOCKET_STATE_PAIR || isNamedDatagram(m))
}

// isNamedDatagram: others send to the unix socket by its name.
func isNamedDatagram(m *state.Socket) bool {
	return m.Family == unix.AF_UNIX && m.Type == unix.SOCK_DGRAM && len(m.Local) > 0 &&
		(m.State == state.SocketState_SOCKET_STATE_OPEN || m.State == state.SocketState_SOCKET_STATE_CONNECTED)
}

const (
	// maxRights is SCM_MAX_FD of include/net/scm.h.
	maxRights = 253
	// maxPid is PID_MAX_LIMIT.
	maxPid = 4 << 20
	// maxName is the size of sun_path.
	maxName = 108
)

// decodeMessages reads a part of what is unread with what came with it.
func decodeMessages(r *record.Record, of func(uint64) *arrival) (*arrival, []*state.SocketMessage, error) {
	q := &state.SocketMessages{}
	if err := proto.Unmarshal(r.Payload, q); err != nil {
		return nil, nil, err
	}
	a := of(q.Description)
	if a == nil || r.Entity>>queueShift != q.Description || !mayReceive(a.msg) || len(a.stream)+len(a.messages) > 0 {
		return nil, nil, fmt.Errorf("messages of description %d, which is nothing that holds any", q.Description)
	}
	if len(a.unread)+len(q.Message) > maxDatagrams {
		return nil, nil, fmt.Errorf("description %d: more than %d messages", q.Description, maxDatagrams)
	}
	for _, m := range q.Message {
		if err := checkMessage(a.msg, m); err != nil {
			return nil, nil, fmt.Errorf("description %d: %w", q.Description, err)
		}
	}
	return a, q.Message, nil
}

func checkMessage(s *state.Socket, m *state.SocketMessage) error {
	if len(m.Right) > maxRights || len(m.Sender) > maxName || len(m.Sender) > 0 && !isNamedDatagram(s) ||
		len(m.Data) == 0 && s.Type == unix.SOCK_STREAM || m.Credentials.GetPid() > maxPid {
		return fmt.Errorf("message of %d bytes with %d descriptors from process %d, %q", len(m.Data), len(m.Right), m.Credentials.GetPid(), m.Sender)
	}
	for _, right := range m.Right {
		if right == 0 {
			return errors.New("descriptions are numbered from 1")
		}
	}
	return nil
}

// isUDP: a socket of UDP over IPv4 or IPv6.
func isUDP(m *state.Socket) bool {
	return m.Type == unix.SOCK_DGRAM && m.Protocol == unix.IPPROTO_UDP && (m.Family == unix.AF_INET || m.Family == unix.AF_INET6)
}

// decodeQueue reads a part of what is unread.
func decodeQueue(r *record.Record, of func(uint64) *arrival) (*arrival, *state.SocketQueue, error) {
	q := &state.SocketQueue{}
	if err := proto.Unmarshal(r.Payload, q); err != nil {
		return nil, nil, err
	}
	a := of(q.Description)
	if a == nil || r.Entity>>queueShift != q.Description || !a.ended && !mayHold(a.msg, r.Kind) || len(a.unread) > 0 {
		return nil, nil, fmt.Errorf("data of description %d, which is nothing that holds data of kind %d", q.Description, r.Kind)
	}
	if len(q.Sender) > 0 != isUDP(a.msg) || isUDP(a.msg) && len(q.Sender) != len(q.Message) {
		return nil, nil, errors.New("unread datagrams and their senders do not fit each other")
	}
	if err := checkSenders(a.msg, q); err != nil {
		return nil, nil, err
	}
	if stream := a.msg.Type == unix.SOCK_STREAM; stream && len(q.Message) > 0 || !stream && len(q.Stream) > 0 {
		return nil, nil, errors.New("unread data of the wrong kind")
	}
	return a, q, nil
}
