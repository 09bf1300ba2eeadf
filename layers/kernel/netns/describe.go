// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Address is what an address's message says.
type Address struct {
	Prefix netip.Prefix
	// Index is its interface's number.
	Index int
	// Tentative: IPv6 does not use it yet. Only a message that was not trimmed has
	// it.
	Tentative bool
}

// ParseAddress reads an address's message.
func ParseAddress(body []byte) (a Address, err error) {
	fixed, list, err := split(body, unix.SizeofIfAddrmsg)
	if err != nil {
		return a, err
	}
	v := find(list, unix.IFA_LOCAL)
	if v == nil {
		v = find(list, unix.IFA_ADDRESS)
	}
	ip, ok := netip.AddrFromSlice(v)
	if !ok || int(fixed[1]) > ip.BitLen() {
		return a, fmt.Errorf("netlink: an address of %d bytes with %d bits of network", len(v), fixed[1])
	}
	flags := uint32(fixed[2]) | number(list, unix.IFA_FLAGS)
	return Address{
		Prefix: netip.PrefixFrom(ip, int(fixed[1])), Index: int(int32(binary.NativeEndian.Uint32(fixed[4:]))),
		Tentative: flags&unix.IFA_F_TENTATIVE != 0,
	}, nil
}

// Settled tells whether IPv6 uses all addresses of the namespace.
func (h *Handle) Settled() (bool, error) {
	list, err := h.dump(unix.RTM_GETADDR, append([]byte{unix.AF_INET6}, make([]byte, unix.SizeofIfAddrmsg-1)...))
	if err != nil {
		return false, err
	}
	for _, b := range list {
		if a, err := ParseAddress(b); err == nil && a.Tentative {
			return false, nil
		}
	}
	return true, nil
}

// Describe shows a message to a person, shortly.
func Describe(c Category, body []byte) string {
	s := &shapes[c]
	fixed, list, err := split(body, s.header)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	word := func(name string, v []byte) {
		if ip, ok := netip.AddrFromSlice(v); ok {
			fmt.Fprintf(&b, " %s %s", name, ip)
		}
	}
	switch c {
	case Addresses:
		if a, err := ParseAddress(body); err == nil {
			fmt.Fprintf(&b, " %s", a.Prefix)
		}
	case Routes:
		if v := find(list, unix.RTA_DST); v != nil {
			word("to", v)
			fmt.Fprintf(&b, "/%d", fixed[1])
		} else {
			b.WriteString(" to everywhere")
		}
		word("via", find(list, unix.RTA_GATEWAY))
		fmt.Fprintf(&b, " table %d", table(fixed, list))
	case Rules:
		fmt.Fprintf(&b, " of priority %d", number(list, unix.FRA_PRIORITY))
	case Neighbours:
		word("at", find(list, unix.NDA_DST))
	case Disciplines, Classes:
		fmt.Fprintf(&b, " %s %x:", text(list, unix.TCA_KIND), binary.NativeEndian.Uint32(fixed[8:])>>16)
	}
	if s.index != 0 {
		fmt.Fprintf(&b, " (interface %d)", binary.NativeEndian.Uint32(fixed[s.index:]))
	}
	return strings.TrimSpace(b.String())
}

// addressesOf are the attributes of a category that are addresses of the
// container's own, which change when it gets others.
var addressesOf = map[Category][]uint16{
	Addresses: {unix.IFA_ADDRESS, unix.IFA_LOCAL},
	Routes:    {unix.RTA_PREFSRC, unix.RTA_DST, unix.RTA_SRC},
	Rules:     {unix.FRA_DST, unix.FRA_SRC},
}

// Replace gives a trimmed message other addresses. Broadcast addresses of a
// network are not changed, but left out where the network is another.
func Replace(c Category, body []byte, of func(netip.Addr) netip.Addr) ([]byte, error) {
	kinds := addressesOf[c]
	s := &shapes[c]
	fixed, list, err := split(body, s.header)
	if err != nil || kinds == nil {
		return body, err
	}
	out, changed := append([]byte(nil), fixed...), false
	for _, a := range list {
		for _, k := range kinds {
			if ip, ok := netip.AddrFromSlice(a.value); ok && a.plain() == k && of(ip) != ip {
				a.value, changed = of(ip).AsSlice(), true
			}
		}
		if c == Addresses && a.plain() == unix.IFA_BROADCAST && changed {
			continue
		}
		out = put(out, a.kind, a.value)
	}
	return out, nil
}
