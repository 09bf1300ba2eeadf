// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// Sockets of packet(7) have no address but an interface, which is found again by
// its name, and a protocol. Until they are bound they receive nothing, so options
// and the filter are there before the first packet. What is unread is lost, as
// a network may lose it.
//
// A ring that the socket shares with its program (PACKET_RX_RING, PACKET_TX_RING)
// is refused: the kernel's place in it, from which the program counts, is told by
// nobody and set by nobody.

// classifyPacket says whether a packet socket is carried.
func (n *network) classifyPacket(t procfs.Task, d *target.Descriptor) (state.SocketState, error) {
	s, err := packetOf(t, d.Link.Inode)
	if err != nil {
		return 0, err
	}
	const what = "PACKET socket"
	switch {
	case s == nil:
		return 0, foreign(what)
	case s.ring != "":
		return 0, &refusal{what, "it has a ring in memory that it shares with its program (" + s.ring + "): how far the kernel has got in it nobody tells", "close it before the checkpoint, or let the program read by recv(2)"}
	case s.index < 0:
		return 0, &refusal{what, "the interface that it is bound to has gone", "close it before the checkpoint"}
	}
	return state.SocketState_SOCKET_STATE_OPEN, borrow(d.Holder, d.FD, func(own int) error {
		if typ, err := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || typ == unix.SOCK_PACKET {
			return errors.Join(err, &refusal{what, "type SOCK_PACKET of Linux 2.0 is not carried", "use SOCK_RAW"})
		}
		group, err := unix.GetsockoptInt(own, unix.SOL_PACKET, unix.PACKET_FANOUT)
		if mode := group >> 16 & 0xff; err == nil && s.inFanout && (mode == unix.PACKET_FANOUT_CBPF || mode == unix.PACKET_FANOUT_EBPF) {
			return &refusal{what, "a program chooses the socket of its group (PACKET_FANOUT_CBPF, _EBPF), which the kernel does not give away", "close it before the checkpoint, or choose another mode"}
		}
		return err
	})
}

// packetOf asks about one packet socket; nil: it is not of the process's network.
func packetOf(t procfs.Task, inode uint64) (s *packetSocket, err error) {
	err = target.InNamespace(t.Path("ns/net"), func() error {
		all, err := listPacket()
		s = all[uint32(inode)]
		return err
	})
	return s, err
}

// packetState fills in what a packet socket is bound to and a member of.
func (g *getter) packetState(msg *state.Socket) error {
	s, err := packetOf(g.p.Proc, g.d.Link.Inode)
	if err != nil {
		return err
	}
	if s == nil {
		return foreign("PACKET socket")
	}
	p := &state.PacketSocket{Protocol: uint32(s.protocol), InFanout: s.inFanout, CopyThreshold: s.copyThreshold}
	if s.inFanout {
		v, err := unix.GetsockoptInt(g.fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
		if err != nil {
			return os.NewSyscallError("getsockopt(PACKET_FANOUT)", err)
		}
		p.Fanout = uint32(v)
	}
	msg.Packet = p
	return target.InNamespace(g.p.Proc.Path("ns/net"), func() error {
		if p.Interface, err = interfaceName(s.index); err != nil {
			return fmt.Errorf("interface %d of a PACKET socket: %w", s.index, err)
		}
		for _, m := range s.groups {
			name, err := interfaceName(int32(m.index))
			if err != nil {
				return fmt.Errorf("interface %d of a membership of a PACKET socket: %w", m.index, err)
			}
			p.Membership = append(p.Membership, &state.PacketMembership{Interface: name, Type: m.typ, Address: m.address, Count: m.count})
		}
		return nil
	})
}

// interfaceName is the name of an interface of the thread's network; 0 has none.
func interfaceName(index int32) (string, error) {
	if index == 0 {
		return "", nil
	}
	link, err := net.InterfaceByIndex(int(index))
	if err != nil {
		return "", err
	}
	return link.Name, nil
}

// Limits of what a packet socket is a member of; the kernel has none for root.
const (
	maxPacketMemberships = 1024
	maxPacketAddress     = 32 // MAX_ADDR_LEN of include/linux/netdevice.h
)

// checkPacket: a packet socket, and nothing else, has the state of one.
func checkPacket(m *state.Socket) error {
	p := m.Packet
	if (p != nil) != (m.Family == unix.AF_PACKET) {
		return errors.New("a socket and its state of packet(7) do not fit each other")
	}
	if p == nil {
		return nil
	}
	if !isInterfaceName(p.Interface) && p.Interface != "" || p.Protocol > 0xffff || len(p.Membership) > maxPacketMemberships || !p.InFanout && p.Fanout != 0 {
		return fmt.Errorf("packet socket on interface %q for protocol %#x with %d memberships, fan-out %#x", p.Interface, p.Protocol, len(p.Membership), p.Fanout)
	}
	for _, g := range p.Membership {
		if !isInterfaceName(g.Interface) || g.Type > unix.PACKET_MR_UNICAST || len(g.Address) > maxPacketAddress || g.Count == 0 || g.Count > maxPacketMemberships {
			return fmt.Errorf("packet socket is %d times a member of type %d on interface %q", g.Count, g.Type, g.Interface)
		}
	}
	return nil
}

// isInterfaceName reports whether an interface may be called so (net/core/dev.c,
// dev_valid_name).
func isInterfaceName(name string) bool {
	return name != "" && len(name) < unix.IFNAMSIZ && !strings.ContainsAny(name, "\x00/: ")
}

// buildPacket binds a packet socket that has its options and its filter.
func (b *builder) buildPacket(p *target.Plan, fd int, m *state.PacketSocket) error {
	set := func(name int, value []byte) {
		p.Call(tracer.Syscall(unix.SYS_SETSOCKOPT, uint64(fd), unix.SOL_PACKET, uint64(name), p.Put(value), uint64(len(value))))
	}
	if m.CopyThreshold != 0 {
		set(unix.PACKET_COPY_THRESH, int32Bytes(int(m.CopyThreshold)))
	}
	if m.Interface != "" || m.Protocol != 0 {
		index := uint32(0)
		if m.Interface != "" {
			var err error
			if index, err = b.interfaceIndex(m.Interface); err != nil {
				return fmt.Errorf("PACKET socket: this network has no interface %q: %w", m.Interface, err)
			}
		}
		// struct sockaddr_ll behind sa_family: protocol, interface, hardware type,
		// packet type, length of an address, the address.
		a := make([]byte, 18)
		binary.BigEndian.PutUint16(a, uint16(m.Protocol))
		binary.NativeEndian.PutUint32(a[2:], index)
		p.Call(bind(p, fd, unix.AF_PACKET, a))
	}
	for _, g := range m.Membership {
		index, err := b.interfaceIndex(g.Interface)
		if err != nil {
			return fmt.Errorf("PACKET_ADD_MEMBERSHIP: this network has no interface %q: %w", g.Interface, err)
		}
		// struct packet_mreq, whose address may be longer.
		r := make([]byte, 8, 8+maxPacketAddress)
		binary.NativeEndian.PutUint32(r, index)
		binary.NativeEndian.PutUint16(r[4:], uint16(g.Type))
		binary.NativeEndian.PutUint16(r[6:], uint16(len(g.Address)))
		r = append(r, g.Address...)
		if len(r) < 16 {
			r = r[:16]
		}
		for range g.Count {
			set(unix.PACKET_ADD_MEMBERSHIP, r)
		}
	}
	if m.InFanout {
		set(unix.PACKET_FANOUT, int32Bytes(int(m.Fanout)))
	}
	return nil
}
