// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// forgePatience bounds the wait for a segment over the loopback.
const forgePatience = 2 * time.Second

// endOther lets the kernel receive the end of the other stream once more: the
// other end, on another host, had sent it before, and had the acknowledgment. It
// must be called in the connection's network namespace.
func (r *rising) endOther() error {
	t := r.msg.Tcp
	from, to := endpoint(r.msg.Family, r.msg.Remote), endpoint(r.msg.Family, r.msg.Local)
	segment := finSegment(from, to, t.ReceiveNext, r.acknowledged)
	if err := inject(from.Addr(), to.Addr(), unix.IPPROTO_TCP, segment); err != nil {
		return err
	}
	for end := time.Now().Add(forgePatience); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		b, err := get(r.fd(), unix.IPPROTO_TCP, unix.TCP_INFO, 8)
		if err != nil || len(b) < 8 {
			return fmt.Errorf("getsockopt(TCP_INFO): %d bytes: %w", len(b), err)
		}
		if finReceived(b[0]) || b[0] == stateClose {
			return nil
		}
	}
	return errors.New("the kernel does not take the segment: does a packet filter drop what comes over the loopback?")
}

// finSegment is a TCP segment that ends a stream (RFC 9293).
func finSegment(from, to netip.AddrPort, sequence, acknowledged uint32) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(nil, from.Port())
	b = be.AppendUint16(b, to.Port())
	b = be.AppendUint32(b, sequence)
	b = be.AppendUint32(b, acknowledged)
	const words, fin, ack = 5, 1, 1 << 4
	b = append(b, words<<4, fin|ack)
	b = be.AppendUint16(b, 65535) // window
	b = append(b, 0, 0, 0, 0)     // checksum, urgent pointer
	be.PutUint16(b[16:], checksum(append(pseudoHeader(from.Addr(), to.Addr(), unix.IPPROTO_TCP, len(b)), b...)))
	return b
}

// pseudoHeader is what checksums of transport protocols also cover; for IPv4 the
// order of its fields differs, which changes no sum.
func pseudoHeader(from, to netip.Addr, protocol uint32, size int) []byte {
	b := append(from.AsSlice(), to.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	return binary.BigEndian.AppendUint32(b, protocol)
}

// checksum is that of the internet protocols (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
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

// inject sends what a transport protocol had sent to an address of this namespace,
// as if it came from another one. The kernel loops it back, since it is for
// itself.
func inject(from, to netip.Addr, protocol byte, segment []byte) error {
	const hops = 64
	be := binary.BigEndian
	if from.Is4() {
		// struct iphdr; the kernel fills in length, id and checksum (raw(7)).
		header := make([]byte, 20)
		header[0], header[8], header[9] = 4<<4|5, hops, protocol
		copy(header[12:], from.AsSlice())
		copy(header[16:], to.AsSlice())
		return sendRaw(unix.AF_INET, append(header, segment...), &unix.SockaddrInet4{Addr: to.As4()})
	}
	header := make([]byte, 40) // struct ipv6hdr
	header[0], header[6], header[7] = 6<<4, protocol, hops
	be.PutUint16(header[4:], uint16(len(segment)))
	copy(header[8:], from.AsSlice())
	copy(header[24:], to.AsSlice())
	return sendRaw(unix.AF_INET6, append(header, segment...), &unix.SockaddrInet6{Addr: to.As16()})
}

// sendRaw sends a packet with its own header (IPPROTO_RAW of raw(7), ipv6(7)).
func sendRaw(family int, packet []byte, to unix.Sockaddr) error {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("a raw socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, packet, 0, to); err != nil {
		return fmt.Errorf("send a segment to ourselves: %w", err)
	}
	return nil
}
