// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// InetSocket is one line of net/{tcp,tcp6,udp,udp6,raw,raw6}. The files show
// the network namespace of the task, and only its connection state: what is
// needed to name and to match sockets, not to restore them.
type InetSocket struct {
	Local, Remote    netip.AddrPort // a raw socket's local port is its protocol
	State            uint8          // TCP_ESTABLISHED 1 ... TCP_LISTEN 10; UDP uses 1 and 7
	TxQueue, RxQueue uint32         // bytes; of a listener RxQueue counts connections to accept
	TimerActive      uint8          // 0 none, 1 retransmit, 2 keep-alive, 3 TIME_WAIT, 4 window probe
	TimerWhen        uint64         // clock ticks until it fires
	Retransmits      uint64
	UID              uint32
	Inode            uint64 // 0: no descriptor (TIME_WAIT, embryonic, orphaned)
}

// TCPListen is the State of a listening TCP socket.
const TCPListen = 10

var errAddress = errors.New("is not an address in hexadecimal")

// ParseInet reads any of net/{tcp,tcp6,udp,udp6,raw,raw6}.
func ParseInet(data []byte) ([]InetSocket, error) { return inetTable().parse("net/inet", data) }

// Inet reads net/NAME for NAME tcp, tcp6, udp, udp6, raw or raw6.
func (t Task) Inet(name string) ([]InetSocket, error) {
	return inetTable().stream(t.fs, t.file("net/"+name))
}

func inetTable() *table[InetSocket] {
	return &table[InetSocket]{heading: "sl ", row: inetRow}
}

// inetRow reads up to the inode: what follows differs from file to file and
// by state, and is the kernel's bookkeeping (net/ipv4/tcp_ipv4.c,
// get_tcp4_sock; udp.c, udp4_format_sock).
func inetRow(c *cursor) InetSocket {
	var s InetSocket
	c.skip()
	c.number(c.until(':', "slot"), 10, 64, "slot")
	s.Local = c.hexAddrPort("local address")
	s.Remote = c.hexAddrPort("remote address")
	s.State = uint8(c.number(c.field("state"), 16, 8, "state"))
	c.skip()
	s.TxQueue = uint32(c.number(c.until(':', "send queue"), 16, 32, "send queue"))
	s.RxQueue = c.hex32("receive queue")
	c.skip()
	s.TimerActive = uint8(c.number(c.until(':', "timer"), 16, 8, "timer"))
	s.TimerWhen = c.hex("timer")
	s.Retransmits = c.hex("retransmits")
	s.UID = c.dec32("uid")
	c.int64("timeout")
	s.Inode = c.dec("inode")
	return s
}

// hexAddrPort reads "0100007F:1F90": the address as 32-bit words in the
// kernel's byte order (little-endian here), the port as a number.
func (c *cursor) hexAddrPort(what string) netip.AddrPort {
	c.skip()
	host := c.until(':', what)
	port := uint16(c.number(c.field(what), 16, 16, what))
	if c.err != nil {
		return netip.AddrPort{}
	}
	if len(host) != 8 && len(host) != 32 {
		c.fail(what, errAddress)
		return netip.AddrPort{}
	}
	var raw [16]byte
	for i := 0; i < len(host); i += 8 {
		word := c.number(host[i:i+8], 16, 32, what)
		binary.LittleEndian.PutUint32(raw[i/2:], uint32(word))
	}
	if len(host) == 8 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[:4])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(raw), port)
}
