// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package packet takes copies of the TCP and UDP packets that arrive in a network
// namespace, and has packets arrive there once more. With package netdrop, which
// keeps the namespace from answering, it holds what reaches a container while that
// is on its way to another host.
//
// A packet is what IP has of it: a header of IPv4 or IPv6 without extensions and
// what follows. Fragments are not taken: their sender has to send them again.
//
// Sources: packet(7), raw(7), ipv6(7); RFC 791, 8200, 9293, 768, 1071.
package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capture is a socket that sees what arrives.
type Capture struct {
	fd     int
	buffer []byte
	oob    []byte
	// Lost counts packets for which there was no room.
	Lost int
}

// room is for what arrives between two calls of Read, in bytes. A sender's window
// bounds what it has on its way.
const room = 32 << 20

// maxPacket is the largest packet, also one that the kernel has put together out of
// several (GRO).
const maxPacket = 1 << 16

// Open begins to take copies of what arrives for the calling thread's network
// namespace. The caller must Close it.
func Open() (*Capture, error) { return open(unix.PACKET_HOST) }

// OpenSent begins to take copies of what the calling thread's network namespace
// sends, behind filters that drop it at an interface. The caller must Close it.
func OpenSent() (*Capture, error) { return open(unix.PACKET_OUTGOING) }

func open(direction uint32) (*Capture, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0) // no protocol: nothing comes yet
	if err != nil {
		return nil, fmt.Errorf("a packet socket (CONFIG_PACKET): %w", err)
	}
	c := &Capture{fd: fd, buffer: make([]byte, maxPacket), oob: make([]byte, 256)}
	if err := c.listen(direction); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return c, nil
}

func (c *Capture) listen(direction uint32) error {
	code := wanted(direction)
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.SetsockoptSockFprog(c.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("setsockopt(SO_ATTACH_FILTER) of a packet socket: %w", err)
	}
	for _, o := range [][3]int{
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room}, {unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1}, {unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},
	} {
		if err := unix.SetsockoptInt(c.fd, o[0], o[1], o[2]); err != nil {
			return fmt.Errorf("setsockopt(%d, %d) of a packet socket: %w", o[0], o[1], err)
		}
	}
	if err := unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: network16(unix.ETH_P_ALL)}); err != nil {
		return fmt.Errorf("bind a packet socket: %w", err)
	}
	return nil
}

// network16 is a number in network byte order.
func network16(n uint16) uint16 { return n>>8 | n<<8 }

// Offsets of a filter's ancillary data (linux/filter.h).
const (
	ancillary  = 1<<32 - 0x1000 // SKF_AD_OFF
	adProtocol = 0
	adType     = 4
)

// wanted is a filter for TCP and UDP packets to this host (PACKET_HOST), or from it
// (PACKET_OUTGOING). A packet of SOCK_DGRAM begins with its network header.
func wanted(direction uint32) []unix.SockFilter {
	const take = 1<<32 - 1
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: at}
	}
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	return []unix.SockFilter{
		load(unix.BPF_H, ancillary+adType),
		equal(direction, 0, 9),
		load(unix.BPF_H, ancillary+adProtocol),
		equal(unix.ETH_P_IP, 0, 2),
		load(unix.BPF_B, 9), // protocol of IPv4
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 2},
		equal(unix.ETH_P_IPV6, 0, 4),
		load(unix.BPF_B, 6), // next header of IPv6
		equal(unix.IPPROTO_TCP, 1, 0),
		equal(unix.IPPROTO_UDP, 0, 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: take},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

// FD is for poll(2).
func (c *Capture) FD() int { return c.fd }

// Close ends it.
func (c *Capture) Close() error { return unix.Close(c.fd) }

// Packet is one that has arrived.
type Packet struct {
	Data []byte
	// At is when it came.
	At time.Time
}

// Read returns the next packet; ok is false if there is none at the moment.
func (c *Capture) Read() (p Packet, ok bool, err error) {
	for {
		n, oobn, _, _, err := unix.Recvmsg(c.fd, c.buffer, c.oob, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return p, false, c.countLost()
		case errors.Is(err, unix.ENETDOWN):
			continue // a device went away: told once
		case err != nil:
			return p, false, os.NewSyscallError("recvmsg of a packet socket", err)
		}
		at, unfinished := parseControl(c.oob[:oobn])
		data := bytes.Clone(withoutPadding(c.buffer[:n]))
		h, ok := Parse(data)
		if !ok {
			continue
		}
		if unfinished {
			h.finish(data)
		}
		return Packet{Data: data, At: at}, true, nil
	}
}

// countLost asks how many packets found no room (PACKET_STATISTICS).
func (c *Capture) countLost() error {
	s, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return fmt.Errorf("getsockopt(PACKET_STATISTICS): %w", err)
	}
	c.Lost += int(s.Drops)
	return nil
}

// parseControl reads when a packet came, and whether its checksum is left to a
// device that it never saw (a neighbour on this machine).
func parseControl(oob []byte) (at time.Time, unfinished bool) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return at, false
	}
	for _, m := range list {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16:
			at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= int(unsafe.Sizeof(uint32(0))):
			unfinished = binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY != 0
		}
	}
	return at, unfinished
}
