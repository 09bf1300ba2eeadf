// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

func encode(t testing.TB, kind uint32, entity uint64, m proto.Message) *record.Record {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &record.Record{Header: record.Header{Subsystem: Name, Kind: kind, Entity: entity}, Payload: b}
}

// listener is one as the export describes it.
func listener() *state.Socket {
	return &state.Socket{
		Family: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP,
		State: state.SocketState_SOCKET_STATE_LISTENING, Local: make([]byte, 14), Backlog: 5,
		Option: []*state.SocketOption{{Level: unix.IPPROTO_TCP, Name: unix.TCP_NODELAY, Value: int32Bytes(1)}},
	}
}

// datagram is a UDP socket as the export describes it.
func datagram() *state.Socket {
	return &state.Socket{
		Family: unix.AF_INET, Type: unix.SOCK_DGRAM, Protocol: unix.IPPROTO_UDP, State: state.SocketState_SOCKET_STATE_OPEN,
		Local: make([]byte, 14), Membership: []*state.Membership{{Interface: "lo", Group: []byte{239, 1, 2, 3}, Exclude: true}},
	}
}

func half() *state.Socket {
	return &state.Socket{Family: unix.AF_UNIX, Type: unix.SOCK_STREAM, State: state.SocketState_SOCKET_STATE_PAIR}
}

// tcpConnection is one as the export describes it.
func tcpConnection() *state.Socket {
	return &state.Socket{
		Family: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP,
		State: state.SocketState_SOCKET_STATE_CONNECTION, Local: make([]byte, 14), Remote: make([]byte, 14),
		Tcp: &state.TcpConnection{Mss: 1460, Window: &state.TcpWindow{}},
	}
}

// TestHostileWaiting: connections that nobody has accepted have two addresses of one
// family, and wait for a listener, which has room for them.
func TestHostileWaiting(t *testing.T) {
	good := encodeEnds(ends{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:1024")})
	if e, err := decodeEnds(good); err != nil || e.local.Port() != 80 || e.remote.Addr().String() != "10.0.0.2" {
		t.Errorf("%v, %v", e, err)
	}
	for _, bad := range []*state.WaitingEnds{
		nil, {Local: good.Local}, {Local: good.Local, Remote: []byte{1}}, {Local: good.Local, Remote: make([]byte, 18)},
		{Local: good.Local, Remote: []byte{10, 0, 0, 2, 0, 0}},
	} {
		if e, err := decodeEnds(bad); err == nil {
			t.Errorf("%v are taken for %v", bad, e)
		}
	}
	for name, m := range map[string]*state.Socket{"a connection": tcpConnection(), "a listener without room": listener(), "a datagram socket": datagram()} {
		for range 7 {
			m.Waiting = append(m.Waiting, good)
		}
		if _, err := decodeSocket(encode(t, KindSocket, 1, m)); err == nil {
			t.Errorf("%s has seven connections that wait", name)
		}
	}
	w := &state.WaitingConnection{Ends: good, Tcp: tcpConnection().Tcp}
	if err := checkWaiting(w); err != nil {
		t.Errorf("one as the source describes it: %v", err)
	}
	w.Tcp.Urgent = 1
	if err := checkWaiting(w); err == nil {
		t.Error("a byte out of band is in an empty queue")
	}
	if err := checkWaiting(&state.WaitingConnection{Ends: good}); err == nil {
		t.Error("one without state")
	}
}

func TestHostileConnectionsAreRefused(t *testing.T) {
	if _, err := decodeSocket(encode(t, KindSocket, 1, tcpConnection())); err != nil {
		t.Errorf("a connection as the export describes it: %v", err)
	}
	for name, fn := range map[string]func(*state.Socket){
		"no state of TCP":        func(m *state.Socket) { m.Tcp = nil },
		"state of TCP and UDP":   func(m *state.Socket) { m.Type, m.Protocol = unix.SOCK_DGRAM, unix.IPPROTO_UDP },
		"of a listener":          func(m *state.Socket) { m.State = state.SocketState_SOCKET_STATE_LISTENING },
		"no address":             func(m *state.Socket) { m.Local = nil },
		"no other address":       func(m *state.Socket) { m.Remote = nil },
		"short address":          func(m *state.Socket) { m.Remote = make([]byte, 3) },
		"no window":              func(m *state.Socket) { m.Tcp.Window = nil },
		"segments of nothing":    func(m *state.Socket) { m.Tcp.Mss = 0 },
		"large segments":         func(m *state.Socket) { m.Tcp.Mss = 1 << 16 },
		"scale":                  func(m *state.Socket) { m.Tcp.SendScale = 15 },
		"other scale":            func(m *state.Socket) { m.Tcp.ReceiveScale = 1 << 20 },
		"buffer":                 func(m *state.Socket) { m.Tcp.SendBuffer = 1 << 31 },
		"ended and shut":         func(m *state.Socket) { m.Tcp.ReceiveEnded, m.Tcp.ReceiveShut = true, true },
		"connects to nowhere":    func(m *state.Socket) { m.State, m.Tcp, m.Remote = state.SocketState_SOCKET_STATE_CONNECTING, nil, nil },
		"connects and is":        func(m *state.Socket) { m.State = state.SocketState_SOCKET_STATE_CONNECTING },
		"unix that is connected": func(m *state.Socket) { m.Family, m.Protocol = unix.AF_UNIX, 0 },
	} {
		m := tcpConnection()
		fn(m)
		if _, err := decodeSocket(encode(t, KindSocket, 1, m)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHostileSocketsAreRefused(t *testing.T) {
	if _, err := decodeSocket(encode(t, KindSocket, 1, listener())); err != nil {
		t.Errorf("a listener as the export describes it: %v", err)
	}
	change := func(m *state.Socket, fn func(*state.Socket)) *state.Socket { fn(m); return m }
	for name, m := range map[string]*state.Socket{
		"raw":           change(listener(), func(m *state.Socket) { m.Type, m.Protocol = unix.SOCK_RAW, 0 }),
		"filter":        change(listener(), func(m *state.Socket) { m.Filter = make([]byte, 9) }),
		"long filter":   change(listener(), func(m *state.Socket) { m.Filter = make([]byte, 8*4097) }),
		"member":        change(listener(), func(m *state.Socket) { m.Membership = []*state.Membership{{Interface: "lo", Group: make([]byte, 4)}} }),
		"group":         change(datagram(), func(m *state.Socket) { m.Membership[0].Group = make([]byte, 5) }),
		"group of IPv6": change(datagram(), func(m *state.Socket) { m.Membership[0].Group = make([]byte, 16) }),
		"interface":     change(datagram(), func(m *state.Socket) { m.Membership[0].Interface = "a name that is too long" }),
		"source":        change(datagram(), func(m *state.Socket) { m.Membership[0].Source = [][]byte{{1}} }),
		"netfilter": change(listener(), func(m *state.Socket) {
			m.Family, m.Type, m.Protocol, m.Local = unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, nil
		}),
		"packet":          change(listener(), func(m *state.Socket) { m.Family = unix.AF_PACKET }),
		"SCTP":            change(listener(), func(m *state.Socket) { m.Protocol = unix.IPPROTO_SCTP }),
		"address":         change(listener(), func(m *state.Socket) { m.Local = make([]byte, 120) }),
		"no state":        change(listener(), func(m *state.Socket) { m.State = 0 }),
		"TCP pair":        change(listener(), func(m *state.Socket) { m.State = state.SocketState_SOCKET_STATE_PAIR }),
		"UDP that waits":  change(listener(), func(m *state.Socket) { m.Type, m.Protocol = unix.SOCK_DGRAM, unix.IPPROTO_UDP }),
		"backlog":         change(listener(), func(m *state.Socket) { m.Backlog = 1 << 31 }),
		"flags":           change(listener(), func(m *state.Socket) { m.Flags = unix.O_APPEND }),
		"groups":          change(listener(), func(m *state.Socket) { m.Group = []uint32{1} }),
		"TCP with a file": change(listener(), func(m *state.Socket) { m.File = &state.SocketFile{} }),
		"option":          change(listener(), func(m *state.Socket) { m.Option[0].Name = 9999 }),
		"option's level":  change(listener(), func(m *state.Socket) { m.Option[0].Level = 1 << 31 }),
		"option's size":   change(listener(), func(m *state.Socket) { m.Option[0].Value = make([]byte, 5) }),
		"packet filter": change(listener(), func(m *state.Socket) {
			m.Option[0].Level, m.Option[0].Name, m.Option[0].Value = unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, make([]byte, 16)
		}),
		"name without file": change(half(), func(m *state.Socket) {
			m.State, m.Local = state.SocketState_SOCKET_STATE_OPEN, []byte("/run/x\x00")
		}),
		"directory of an absolute name": change(half(), func(m *state.Socket) {
			m.State, m.Local, m.File = state.SocketState_SOCKET_STATE_OPEN, []byte("/run/x\x00"), &state.SocketFile{Directory: "/etc"}
		}),
	} {
		if _, err := decodeSocket(encode(t, KindSocket, 1, m)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHostileQueuesAreRefused(t *testing.T) {
	s := New(target.Env{})
	for id, m := range map[uint64]*state.Socket{1: half(), 2: listener(), 4: tcpConnection(), 5: datagram()} {
		if err := s.receive(encode(t, KindSocket, id, m)); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]*record.Record{
		"of a listener":  encode(t, KindQueue, 2<<queueShift, &state.SocketQueue{Description: 2, Stream: []byte("x")}),
		"of nobody":      encode(t, KindQueue, 3<<queueShift, &state.SocketQueue{Description: 3, Stream: []byte("x")}),
		"messages":       encode(t, KindQueue, 1<<queueShift, &state.SocketQueue{Description: 1, Message: [][]byte{{1}}}),
		"sent by a pair": encode(t, KindSendQueue, 1<<queueShift, &state.SocketQueue{Description: 1, Stream: []byte("x")}),
		"of TCP":         encode(t, KindSendQueue, 4<<queueShift, &state.SocketQueue{Description: 4, Message: [][]byte{{1}}}),
		"no sender":      encode(t, KindQueue, 5<<queueShift, &state.SocketQueue{Description: 5, Message: [][]byte{{1}}}),
		"short sender":   encode(t, KindQueue, 5<<queueShift, &state.SocketQueue{Description: 5, Message: [][]byte{{1}}, Sender: [][]byte{{1}}}),
		"senders":        encode(t, KindQueue, 1<<queueShift, &state.SocketQueue{Description: 1, Stream: []byte("x"), Sender: [][]byte{make([]byte, 14)}}),
		"another entity": encode(t, KindQueue, 2<<queueShift, &state.SocketQueue{Description: 1, Stream: []byte("x")}),
		"a socket again": encode(t, KindSocket, 1, half()),
	} {
		if err := s.receive(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDiagOfAPair(t *testing.T) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	if _, err := unix.Write(p[0], []byte("hello")); err != nil {
		t.Fatal(err)
	}
	var st [2]unix.Stat_t
	for i := range p {
		if err := unix.Fstat(p[i], &st[i]); err != nil {
			t.Fatal(err)
		}
	}
	list, err := listUnix()
	if err != nil {
		t.Fatal(err)
	}
	u := list[uint32(st[1].Ino)]
	if u == nil || !u.hasPeer || uint64(u.peer) != st[0].Ino || u.received != 5 || u.state != stateEstablished || u.shutdown != 0 {
		t.Fatalf("%+v, peer %d", u, st[0].Ino)
	}
}

func FuzzParseDump(f *testing.F) {
	f.Add(make([]byte, 16))
	f.Add([]byte{36, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 10, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseDump(b, map[uint32]*unixSocket{}) })
}

func FuzzParseInet(f *testing.F) {
	f.Add(make([]byte, 16))
	f.Add(append([]byte{88, 0, 0, 0, 20, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 72)...))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseInet(b, func(*inetSocket) {}) })
}

func FuzzDecode(f *testing.F) {
	f.Add(uint32(KindSocket), encode(f, KindSocket, 1, listener()).Payload)
	f.Add(uint32(KindSocket), encode(f, KindSocket, 1, half()).Payload)
	f.Add(uint32(KindSocket), encode(f, KindSocket, 1, tcpConnection()).Payload)
	f.Fuzz(func(t *testing.T, kind uint32, payload []byte) {
		m, err := decodeSocket(&record.Record{Header: record.Header{Kind: kind, Entity: 1}, Payload: payload})
		if err != nil {
			return
		}
		_ = summary(m)
		if len(m.Local) > 108 || len(m.Remote) > 108 || m.Family == unix.AF_PACKET {
			t.Fatalf("socket %v", m)
		}
	})
}

// named is a datagram socket that others send to.
func named() *state.Socket {
	return &state.Socket{Family: unix.AF_UNIX, Type: unix.SOCK_DGRAM, State: state.SocketState_SOCKET_STATE_OPEN, Local: []byte("\x00name")}
}

func TestHostileMessagesAreRefused(t *testing.T) {
	sockets := map[uint64]*arrival{1: {msg: half()}, 2: {msg: named()}, 3: {msg: datagram()}, 4: {msg: half(), stream: []byte("x")}}
	of := func(id uint64) *arrival { return sockets[id] }
	good := &state.SocketMessage{Data: []byte("x"), Right: []uint64{7}, Credentials: &state.SocketCredentials{Pid: 1}}
	part := func(id uint64, m ...*state.SocketMessage) *record.Record {
		return encode(t, KindMessages, id<<queueShift, &state.SocketMessages{Description: id, Message: m})
	}
	for _, id := range []uint64{1, 2} {
		if _, list, err := decodeMessages(part(id, good), of); err != nil || len(list) != 1 {
			t.Errorf("a message as the export describes it: %v, %v", list, err)
		}
	}
	many := make([]*state.SocketMessage, maxDatagrams+1)
	for i := range many {
		many[i] = good
	}
	for name, r := range map[string]*record.Record{
		"no socket":                part(9, good),
		"not a unix socket":        part(3, good),
		"a stream besides":         part(4, good),
		"nothing in a stream":      part(1, &state.SocketMessage{Right: []uint64{7}}),
		"sender of a stream":       part(1, &state.SocketMessage{Data: []byte("x"), Sender: []byte("n")}),
		"long name":                part(2, &state.SocketMessage{Sender: make([]byte, 109)}),
		"description 0":            part(2, &state.SocketMessage{Right: []uint64{0}}),
		"too many descriptors":     part(2, &state.SocketMessage{Right: make([]uint64, maxRights+1)}),
		"process":                  part(2, &state.SocketMessage{Credentials: &state.SocketCredentials{Pid: maxPid + 1}}),
		"too many messages":        part(2, many...),
		"entity of another socket": encode(t, KindMessages, 2<<queueShift, &state.SocketMessages{Description: 1}),
	} {
		if _, _, err := decodeMessages(r, of); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHostilePendingConnectionsAreRefused(t *testing.T) {
	l := named()
	l.Type, l.State, l.Backlog, l.Pending = unix.SOCK_STREAM, state.SocketState_SOCKET_STATE_LISTENING, 1, []uint64{4, 5}
	c := half()
	c.State, c.Peer = state.SocketState_SOCKET_STATE_CONNECTING, 1
	for _, m := range []*state.Socket{l, c} {
		if _, err := decodeSocket(encode(t, KindSocket, 1, m)); err != nil {
			t.Errorf("as the export describes it: %v: %v", m, err)
		}
	}
	l.Pending = append(l.Pending, 6)
	tcp := listener()
	tcp.Pending = []uint64{4}
	alone, packet := half(), named()
	alone.State = state.SocketState_SOCKET_STATE_CONNECTING
	packet.State, packet.Peer = state.SocketState_SOCKET_STATE_CONNECTING, 1
	for name, m := range map[string]*state.Socket{"more than the backlog": l, "of TCP": tcp, "to nobody": alone, "datagrams": packet} {
		if _, err := decodeSocket(encode(t, KindSocket, 1, m)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecodeMessages(f *testing.F) {
	f.Add(uint64(1), encode(f, KindMessages, 1, &state.SocketMessages{Description: 1, Message: []*state.SocketMessage{{Data: []byte("x"), Right: []uint64{3}}}}).Payload)
	f.Add(uint64(2), encode(f, KindMessages, 2, &state.SocketMessages{Description: 2, Message: []*state.SocketMessage{{Sender: []byte("/a"), Credentials: &state.SocketCredentials{Pid: 9}}}}).Payload)
	f.Fuzz(func(t *testing.T, id uint64, payload []byte) {
		sockets := map[uint64]*arrival{1: {msg: half()}, 2: {msg: named()}}
		r := &record.Record{Header: record.Header{Kind: KindMessages, Entity: id << queueShift}, Payload: payload}
		a, list, err := decodeMessages(r, func(id uint64) *arrival { return sockets[id] })
		if err != nil {
			return
		}
		for _, m := range list {
			if len(m.Right) > maxRights || len(m.Sender) > 0 && a != sockets[2] || m.Credentials.GetPid() > maxPid {
				t.Fatalf("message %v", m)
			}
		}
	})
}
