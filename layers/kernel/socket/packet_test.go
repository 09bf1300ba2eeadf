// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// sniffer is a packet socket as the export describes it.
func sniffer() *state.Socket {
	return &state.Socket{
		Family: unix.AF_PACKET, Type: unix.SOCK_RAW, State: state.SocketState_SOCKET_STATE_OPEN,
		Packet: &state.PacketSocket{
			Interface: "lo", Protocol: unix.ETH_P_IP, InFanout: true, Fanout: 77,
			Membership: []*state.PacketMembership{{Interface: "lo", Type: unix.PACKET_MR_MULTICAST, Address: make([]byte, 6), Count: 2}},
		},
		Option: []*state.SocketOption{{Level: unix.SOL_PACKET, Name: unix.PACKET_AUXDATA, Value: int32Bytes(1)}},
	}
}

func TestHostilePacketSocketsAreRefused(t *testing.T) {
	if _, err := decodeSocket(encode(t, KindSocket, 1, sniffer())); err != nil {
		t.Errorf("a packet socket as the export describes it: %v", err)
	}
	for name, fn := range map[string]func(*state.Socket){
		"none":                func(m *state.Socket) { m.Packet = nil },
		"of another family":   func(m *state.Socket) { *m = *datagram(); m.Packet = &state.PacketSocket{} },
		"SOCK_PACKET":         func(m *state.Socket) { m.Type = unix.SOCK_PACKET },
		"protocol at birth":   func(m *state.Socket) { m.Protocol = 0x300 },
		"address":             func(m *state.Socket) { m.Local = make([]byte, 18) },
		"listens":             func(m *state.Socket) { m.State = state.SocketState_SOCKET_STATE_LISTENING },
		"interface":           func(m *state.Socket) { m.Packet.Interface = "../../lo" },
		"protocol":            func(m *state.Socket) { m.Packet.Protocol = 1 << 16 },
		"group of none":       func(m *state.Socket) { m.Packet.InFanout = false },
		"member nowhere":      func(m *state.Socket) { m.Packet.Membership[0].Interface = "" },
		"member of no type":   func(m *state.Socket) { m.Packet.Membership[0].Type = 9 },
		"long address":        func(m *state.Socket) { m.Packet.Membership[0].Address = make([]byte, 33) },
		"member a thousandth": func(m *state.Socket) { m.Packet.Membership[0].Count = 1 << 20 },
		"member never":        func(m *state.Socket) { m.Packet.Membership[0].Count = 0 },
		"ring":                func(m *state.Socket) { m.Option[0].Name = unix.PACKET_RX_RING },
		"group by option":     func(m *state.Socket) { m.Option[0].Name = unix.PACKET_FANOUT },
		"TCP's option":        func(m *state.Socket) { m.Option[0].Level, m.Option[0].Name = unix.IPPROTO_TCP, unix.TCP_NODELAY },
		"IP's group": func(m *state.Socket) {
			m.Membership = []*state.Membership{{Interface: "lo", Group: []byte{239, 1, 2, 3}, Exclude: true}}
		},
	} {
		m := sniffer()
		fn(m)
		if _, err := decodeSocket(encode(t, KindSocket, 1, m)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestCapabilitiesAreTheSpecs: what takes a capability is made only if the live spec
// gives it.
func TestCapabilitiesAreTheSpecs(t *testing.T) {
	none := &target.Allowed{}
	raw, admin := &target.Allowed{Bounding: 1 << unix.CAP_NET_RAW}, &target.Allowed{Bounding: 1 << unix.CAP_NET_ADMIN}
	bound := &target.Allowed{UID: 1000, Bounding: 1 << unix.CAP_NET_RAW} // which a user does not get by that
	ambient := &target.Allowed{UID: 1000, Permitted: 1 << unix.CAP_NET_RAW}
	with := func(level, name, value int) *state.Socket {
		m := datagram()
		m.Option = []*state.SocketOption{{Level: uint32(level), Name: uint32(name), Value: int32Bytes(value)}}
		return m
	}
	icmp := &state.Socket{Family: unix.AF_INET6, Type: unix.SOCK_RAW, Protocol: unix.IPPROTO_ICMPV6}
	for name, c := range map[string]struct {
		m    *state.Socket
		good []*target.Allowed
		bad  []*target.Allowed
	}{
		"packet":       {sniffer(), []*target.Allowed{raw, ambient}, []*target.Allowed{none, admin, bound}},
		"raw":          {icmp, []*target.Allowed{raw, ambient}, []*target.Allowed{none, admin, bound}},
		"netlink":      {&state.Socket{Family: unix.AF_NETLINK, Type: unix.SOCK_RAW}, []*target.Allowed{none}, nil},
		"mark":         {with(unix.SOL_SOCKET, unix.SO_MARK, 7), []*target.Allowed{raw, admin}, []*target.Allowed{none, bound}},
		"no mark":      {with(unix.SOL_SOCKET, unix.SO_MARK, 0), []*target.Allowed{none}, nil},
		"priority":     {with(unix.SOL_SOCKET, unix.SO_PRIORITY, 7), []*target.Allowed{raw, admin}, []*target.Allowed{none}},
		"low priority": {with(unix.SOL_SOCKET, unix.SO_PRIORITY, 6), []*target.Allowed{none}, nil},
		"transparent":  {with(unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1), []*target.Allowed{raw, admin}, []*target.Allowed{none}},
	} {
		for _, a := range c.good {
			if err := permitted(a, c.m); err != nil {
				t.Errorf("%s with %+v: %v", name, a, err)
			}
		}
		for _, a := range c.bad {
			if permitted(a, c.m) == nil {
				t.Errorf("%s with %+v: made", name, a)
			}
		}
	}
}
