// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Header is what a TCP or UDP packet says of itself.
type Header struct {
	Source, Destination netip.AddrPort
	Protocol            uint8 // IPPROTO_TCP or IPPROTO_UDP
	// New: a TCP segment that asks for a connection (SYN without ACK).
	New bool
	// Sequence is the number of a TCP segment.
	Sequence uint32

	transport int // offset of its header
}

// Bits of the flags of a TCP header.
const (
	tcpSYN = 1 << 1
	tcpACK = 1 << 4
)

// Parse reads the headers of a packet. ok is false for a fragment, one with
// extension headers, and one that is cut off.
func Parse(b []byte) (h Header, ok bool) {
	var from, to netip.Addr
	be := binary.BigEndian
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		h.transport, h.Protocol = int(b[0]&15)*4, b[9]
		const offsetAndMore = 0x3fff
		if h.transport < 20 || be.Uint16(b[6:])&offsetAndMore != 0 || int(be.Uint16(b[2:])) != len(b) {
			return h, false
		}
		from, to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	case len(b) >= 40 && b[0]>>4 == 6:
		h.transport, h.Protocol = 40, b[6]
		if int(be.Uint16(b[4:])) != len(b)-40 {
			return h, false
		}
		from, to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	default:
		return h, false
	}
	t := b[min(len(b), h.transport):]
	switch {
	case h.Protocol == unix.IPPROTO_TCP && len(t) >= 20:
		h.New, h.Sequence = t[13]&(tcpSYN|tcpACK) == tcpSYN, be.Uint32(t[4:])
	case h.Protocol == unix.IPPROTO_UDP && len(t) >= 8:
	default:
		return h, false
	}
	h.Source, h.Destination = netip.AddrPortFrom(from, be.Uint16(t)), netip.AddrPortFrom(to, be.Uint16(t[2:]))
	return h, true
}

// withoutPadding cuts off what fills up a short frame: the kernel takes it away later.
func withoutPadding(b []byte) []byte {
	n := len(b)
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		n = int(binary.BigEndian.Uint16(b[2:]))
	case len(b) >= 40 && b[0]>>4 == 6:
		n = 40 + int(binary.BigEndian.Uint16(b[4:]))
	}
	return b[:min(n, len(b))]
}

// finish computes the transport's checksum.
func (h *Header) finish(b []byte) {
	t := b[h.transport:]
	at := 16
	if h.Protocol == unix.IPPROTO_UDP {
		at = 6
	}
	t[at], t[at+1] = 0, 0
	sum := Sum(h.Source.Addr(), h.Destination.Addr(), h.Protocol, t)
	if sum == 0 && h.Protocol == unix.IPPROTO_UDP {
		sum = 0xffff // 0 stands for none
	}
	binary.BigEndian.PutUint16(t[at:], sum)
}

// Sum is the checksum of what a transport protocol sends (RFC 1071), its own field
// being zero.
func Sum(from, to netip.Addr, protocol uint8, b []byte) uint16 {
	pseudo := append(from.AsSlice(), to.AsSlice()...) // for IPv4 in another order, which changes no sum
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(b)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(protocol))
	return ^fold(add(add(0, pseudo), b))
}

func add(sum uint64, b []byte) uint64 {
	for ; len(b) >= 4; b = b[4:] {
		sum += uint64(binary.BigEndian.Uint32(b))
	}
	if len(b) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(b)) << 16
		b = b[2:]
		if len(b) == 1 {
			sum += uint64(b[0]) << 8
		}
	} else if len(b) == 1 {
		sum += uint64(b[0]) << 24
	}
	return sum
}

func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
