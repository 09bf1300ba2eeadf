// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Injector has packets arrive in a network namespace. They come over its loopback:
// what is bound to another device does not receive them, and a TCP segment for such
// a socket would be answered by a reset.
type Injector struct {
	v4, v6 int // raw sockets; -1: the kernel has no IPv6
	// local are the namespace's addresses of IPv6.
	local map[netip.Addr]bool
}

// NewInjector makes one for the calling thread's network namespace, of which it
// keeps hold. The caller must Close it.
func NewInjector() (*Injector, error) {
	i := &Injector{v4: -1, v6: -1}
	var err error
	if i.v4, err = raw(unix.AF_INET); err == nil {
		i.v6, err = raw(unix.AF_INET6)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			i.v6, err = -1, nil
		}
	}
	if err == nil {
		i.local, err = localAddresses()
	}
	if err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// Mark has what is sent from now on bear a mark (SO_MARK of socket(7)).
func (i *Injector) Mark(mark int) error {
	for _, fd := range []int{i.v4, i.v6} {
		if fd < 0 {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
			return fmt.Errorf("setsockopt(SO_MARK) of a raw socket: %w", err)
		}
	}
	return nil
}

// localAddresses lists those of the calling thread's network namespace.
func localAddresses() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of the network namespace: %w", err)
	}
	out := map[netip.Addr]bool{netip.IPv6Loopback(): true}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				out[addr] = true
			}
		}
	}
	return out, nil
}

// raw makes a socket for packets with their own headers (IPPROTO_RAW of raw(7),
// ipv6(7)). Those of IPv4 leave by the loopback or not at all; for IPv6 the route to
// an address of this host leads to the device that has it (net/ipv6/route.c), and
// none to a socket of the loopback.
func raw(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return -1, fmt.Errorf("a raw socket: %w", err)
	}
	if family == unix.AF_INET {
		err = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo")
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("bind a raw socket to the loopback: %w", err), unix.Close(fd))
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4*maxPacket); err != nil {
		return -1, errors.Join(fmt.Errorf("setsockopt(SO_SNDBUFFORCE): %w", err), unix.Close(fd))
	}
	return fd, nil
}

// Close ends it.
func (i *Injector) Close() {
	for _, fd := range []int{i.v4, i.v6} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// Inject has a whole packet arrive.
func (i *Injector) Inject(b []byte) error {
	h, ok := Parse(b)
	if !ok {
		return fmt.Errorf("a packet of %d bytes that is none of TCP or UDP", len(b))
	}
	return i.send(h.Destination.Addr(), b)
}

func (i *Injector) send(to netip.Addr, b []byte) error {
	fd, sa := i.v4, unix.Sockaddr(nil)
	if to.Is4() {
		sa = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		fd, sa = i.v6, &unix.SockaddrInet6{Addr: to.As16()}
	}
	if to.Is6() && !i.local[to] {
		return fmt.Errorf("a packet to %s, which is no address of this network", to)
	}
	if fd < 0 {
		return fmt.Errorf("a packet to %s: %w", to, unix.EAFNOSUPPORT)
	}
	if err := unix.Sendto(fd, b, 0, sa); err != nil {
		return fmt.Errorf("send a packet to ourselves: %w", err)
	}
	return nil
}

// Forge has what a transport protocol had sent to an address of this namespace
// arrive, as if it came from another one.
func (i *Injector) Forge(from, to netip.Addr, protocol byte, segment []byte) error {
	const hops = 64
	if from.Is4() {
		// struct iphdr; the kernel fills in length, id and checksum (raw(7)).
		header := make([]byte, 20)
		header[0], header[8], header[9] = 4<<4|5, hops, protocol
		copy(header[12:], from.AsSlice())
		copy(header[16:], to.AsSlice())
		return i.send(to, append(header, segment...))
	}
	header := make([]byte, 40) // struct ipv6hdr
	header[0], header[6], header[7] = 6<<4, protocol, hops
	binary.BigEndian.PutUint16(header[4:], uint16(len(segment)))
	copy(header[8:], from.AsSlice())
	copy(header[24:], to.AsSlice())
	return i.send(to, append(header, segment...))
}
