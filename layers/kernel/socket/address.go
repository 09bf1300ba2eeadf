// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// sockaddr puts sa_family in front of an address.
func sockaddr(family uint32, addr []byte) []byte {
	return append(binary.LittleEndian.AppendUint16(nil, uint16(family)), addr...)
}

// wildcard is the same port of every local address.
func wildcard(addr []byte) []byte {
	out := make([]byte, len(addr))
	copy(out, addr[:2])
	return out
}

// endpoint is the address and port of a raw address without sa_family, as
// addrPort makes them; the zero value for other families.
func endpoint(family uint32, addr []byte) netip.AddrPort {
	switch {
	case family == unix.AF_INET && len(addr) >= 6:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addr[2:6])), binary.BigEndian.Uint16(addr))
	case family == unix.AF_INET6 && len(addr) >= 22:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(addr[6:22])).Unmap(), binary.BigEndian.Uint16(addr))
	}
	return netip.AddrPort{}
}

// rawEnd is an address without sa_family, for sockets of its family.
func rawEnd(a netip.AddrPort) []byte {
	b := binary.BigEndian.AppendUint16(nil, a.Port())
	if a.Addr().Is4() {
		return append(append(b, a.Addr().AsSlice()...), make([]byte, 8)...)
	}
	b = append(append(b, 0, 0, 0, 0), a.Addr().AsSlice()...)
	return append(b, 0, 0, 0, 0) // sin6_scope_id
}

// addressText shows an address without sa_family; empty for none.
func addressText(family uint32, addr []byte) string {
	switch {
	case len(addr) == 0:
		return ""
	case family == unix.AF_INET && len(addr) >= 6:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addr[2:6])), binary.BigEndian.Uint16(addr)).String()
	case family == unix.AF_INET6 && len(addr) >= 22:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(addr[6:22])), binary.BigEndian.Uint16(addr)).String()
	case family == unix.AF_UNIX:
		return printable(addr)
	}
	return ""
}
