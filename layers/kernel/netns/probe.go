// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Probe asks the network of an interface of the calling thread's namespace, which
// is up, who has the addresses, as a host does that wants to have them (RFC 5227,
// 2.1.1, and RFC 4862, 5.4), and returns the hardware addresses that answered
// within patience. The question is repeated once.
func Probe(l *Link, addresses []netip.Addr, patience time.Duration) (map[netip.Addr][]net.HardwareAddr, error) {
	if len(l.Address) != macSize {
		return nil, nil // no Ethernet: nobody to ask
	}
	fd, err := packetSocket(unix.ETH_P_ALL)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_ALL), Ifindex: l.Index}); err != nil {
		return nil, os.NewSyscallError("bind(AF_PACKET)", err)
	}
	// Answers to a solicitation go to all nodes, whose group every host is in.
	found := map[netip.Addr][]net.HardwareAddr{}
	for range 2 {
		for _, ip := range addresses {
			if err := ask(fd, l, ip); err != nil {
				return nil, fmt.Errorf("ask for %s on %s: %w", ip, l.Name, err)
			}
		}
		if err := listen(fd, time.Now().Add(patience/2), addresses, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// ask sends one question.
func ask(fd int, l *Link, ip netip.Addr) error {
	to, protocol := broadcast, uint16(unix.ETH_P_ARP)
	var b []byte
	if ip.Is4() {
		b = arp(arpRequest, l.Address, broadcast, netip.IPv4Unspecified(), make([]byte, macSize), ip)
	} else {
		protocol = unix.ETH_P_IPV6
		to, b = solicitation(l.Address, ip)
	}
	sa := &unix.SockaddrLinklayer{Ifindex: l.Index, Protocol: swap(protocol), Halen: macSize}
	copy(sa.Addr[:], to)
	return unix.Sendto(fd, b, 0, sa)
}

// listen gathers answers until a time.
func listen(fd int, until time.Time, addresses []netip.Addr, found map[netip.Addr][]net.HardwareAddr) error {
	buf := make([]byte, 2048)
	for {
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return os.NewSyscallError("poll", err)
		}
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err != nil {
			continue // somebody set the interface down for a moment
		}
		if sa, ok := from.(*unix.SockaddrLinklayer); ok && sa.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		ip, mac := claim(buf[:n])
		for _, a := range addresses {
			if a == ip {
				found[ip] = appendNew(found[ip], mac)
			}
		}
	}
}

func appendNew(list []net.HardwareAddr, mac net.HardwareAddr) []net.HardwareAddr {
	for _, m := range list {
		if bytes.Equal(m, mac) {
			return list
		}
	}
	return append(list, bytes.Clone(mac))
}

// claim reads who says in a frame to have an address: by any ARP packet, since a
// host that has the address is its sender, and by an advertisement.
func claim(b []byte) (ip netip.Addr, mac net.HardwareAddr) {
	const header = 2*macSize + 2
	if len(b) < header {
		return ip, nil
	}
	protocol, from, p := binary.BigEndian.Uint16(b[2*macSize:]), net.HardwareAddr(b[macSize:2*macSize]), b[header:]
	switch {
	case protocol == unix.ETH_P_ARP && len(p) >= 28 && p[4] == macSize && p[5] == 4:
		return netip.AddrFrom4([4]byte(p[14:18])), net.HardwareAddr(p[8:14])
	case protocol == unix.ETH_P_IPV6 && len(p) >= 64 && p[6] == icmpv6 && p[7] == hopLimit && p[40] == ndAdvertisement:
		return netip.AddrFrom16([16]byte(p[48:64])), from
	}
	return ip, nil
}
