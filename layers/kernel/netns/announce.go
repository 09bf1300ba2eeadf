// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Announcer tells the networks of a namespace's interfaces where their addresses
// are: by gratuitous ARP (RFC 5227, 3) and unsolicited neighbour advertisements
// (RFC 4861, 7.2.6). Bridges learn from the same packets where the hardware
// address is. Everything is made before it is needed: Announce only sends.
type Announcer struct {
	fd     int
	frames []frame
}

type frame struct {
	to unix.SockaddrLinklayer
	b  []byte
}

var (
	broadcast   = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// Of if_arp.h and if_ether.h.
const (
	macSize    = 6
	arpRequest = 1
	arpReply   = 2
)

// packetSocket is one of packet(7) in the calling thread's namespace that sends
// frames; protocol says which it receives, 0: none.
func packetSocket(protocol uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swap(protocol)))
	return fd, os.NewSyscallError("socket(AF_PACKET)", err)
}

// swap is htons(3).
func swap(n uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, n))
}

// NewAnnouncer prepares the announcement of an interface's addresses, in the
// calling thread's namespace. Interfaces without Ethernet addresses have nothing
// to announce.
func NewAnnouncer() (*Announcer, error) {
	fd, err := packetSocket(0)
	if err != nil {
		return nil, err
	}
	return &Announcer{fd: fd}, nil
}

// Add adds one address.
func (a *Announcer) Add(index int, mac net.HardwareAddr, ip netip.Addr) {
	if len(mac) != macSize || ip.IsLoopback() || ip.IsMulticast() {
		return
	}
	if ip.Is4() {
		// Some learn from requests only, some from replies.
		for _, op := range []uint16{arpRequest, arpReply} {
			a.add(index, unix.ETH_P_ARP, broadcast, arp(op, mac, broadcast, ip, mac, ip))
		}
		return
	}
	a.add(index, unix.ETH_P_IPV6, allNodesMAC, advertisement(mac, ip))
}

func (a *Announcer) add(index int, protocol uint16, to net.HardwareAddr, b []byte) {
	f := frame{unix.SockaddrLinklayer{Ifindex: index, Protocol: swap(protocol), Halen: macSize}, b}
	copy(f.to.Addr[:], to)
	a.frames = append(a.frames, f)
}

// Announce sends everything.
func (a *Announcer) Announce() error {
	var errs []error
	for _, f := range a.frames {
		if err := unix.Sendto(a.fd, f.b, 0, &f.to); err != nil {
			errs = append(errs, os.NewSyscallError("sendto(AF_PACKET)", err))
		}
	}
	return errors.Join(errs...)
}

// Close closes the socket, which takes the kernel some milliseconds.
func (a *Announcer) Close() error { return unix.Close(a.fd) }

// ethernet is the header of a frame.
func ethernet(to, from net.HardwareAddr, protocol uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append(make([]byte, 0, 128), to...), from...), protocol)
}

// arp is a frame of RFC 826.
func arp(op uint16, from, to net.HardwareAddr, sender netip.Addr, target net.HardwareAddr, asked netip.Addr) []byte {
	b := ethernet(to, from, unix.ETH_P_ARP)
	for _, n := range []uint16{1, unix.ETH_P_IP, macSize<<8 | 4, op} {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	b = append(append(b, from...), sender.AsSlice()...)
	return append(append(b, target...), asked.AsSlice()...)
}

// Of RFC 4861.
const (
	ndSolicitation  = 135
	ndAdvertisement = 136
	ndOverride      = 0x20
	optionSource    = 1
	optionTarget    = 2
	hopLimit        = 255
	icmpv6          = 58
)

// advertisement is an unsolicited neighbour advertisement to all nodes.
func advertisement(mac net.HardwareAddr, ip netip.Addr) []byte {
	body := append([]byte{ndAdvertisement, 0, 0, 0, ndOverride, 0, 0, 0}, ip.AsSlice()...)
	body = append(append(body, optionTarget, 1), mac...)
	return append(ethernet(allNodesMAC, mac, unix.ETH_P_IPV6), ipv6(ip, allNodes, body)...)
}

// solicitation asks, as duplicate address detection does (RFC 4862, 5.4.2), who
// has an address.
func solicitation(mac net.HardwareAddr, ip netip.Addr) (to net.HardwareAddr, b []byte) {
	last := ip.As16()
	group := [16]byte{0xff, 2, 11: 1, 12: 0xff, 13: last[13], 14: last[14], 15: last[15]}
	to = net.HardwareAddr{0x33, 0x33, 0xff, last[13], last[14], last[15]}
	body := append([]byte{ndSolicitation, 0, 0, 0, 0, 0, 0, 0}, ip.AsSlice()...)
	return to, append(ethernet(to, mac, unix.ETH_P_IPV6), ipv6(netip.IPv6Unspecified(), netip.AddrFrom16(group), body)...)
}

// ipv6 puts a header before an ICMPv6 message and fills in its checksum.
func ipv6(from, to netip.Addr, body []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(body)))
	b = append(b, icmpv6, hopLimit)
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	pseudo := append(append([]byte(nil), from.AsSlice()...), to.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
	pseudo = append(pseudo, 0, 0, 0, icmpv6)
	binary.BigEndian.PutUint16(body[2:], checksum(append(pseudo, body...)))
	return append(b, body...)
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func (f *frame) String() string {
	return fmt.Sprintf("%d bytes on interface %d", len(f.b), f.to.Ifindex)
}
