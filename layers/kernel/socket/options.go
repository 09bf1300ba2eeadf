// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bytes"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

// families that an option belongs to, as a set.
type families uint8

const (
	ofUnix families = 1 << iota
	ofTCP
	ofUDP
	ofNetlink
	ofRaw
	ofPacket
	inet6 // only where the family is AF_INET6

	ofInet = ofTCP | ofUDP
	ofAll  = ofUnix | ofInet | ofNetlink | ofPacket
)

// option is one of setsockopt(2). Its value is carried as bytes, if it differs
// from that of a new socket.
type option struct {
	level, name int
	size        int // of the value; the largest for text
	of          families
	text        bool // the value ends at a NUL byte
}

const (
	soReusePort          = 15
	soBufLock            = 72
	soPeekOff            = 42
	soGetFilter          = 26
	soPassPidfd          = 76 // Linux 6.5
	soPassRights         = 83 // Linux 6.16
	solNetlink           = 270
	packetVNetHeaderSize = 24 // PACKET_VNET_HDR_SZ, Linux 6.5
	listMembers          = 9
	addMember            = 1
	number               = 4
	timeval              = 16
	linger               = 8
	longestValue         = 64
)

// table lists what is carried, in the order in which it is set. SO_SNDBUF and
// SO_RCVBUF are not in it: the kernel sizes buffers by itself unless the program
// did (see buffers).
var table = []option{
	{unix.SOL_SOCKET, unix.SO_REUSEADDR, number, ofInet, false},
	{unix.SOL_SOCKET, soReusePort, number, ofInet, false},
	{unix.SOL_SOCKET, unix.SO_BINDTODEVICE, 16, ofInet, true},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, number, ofInet, false},
	{unix.SOL_SOCKET, unix.SO_BROADCAST, number, ofUDP, false},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE, number, ofInet, false},
	{unix.SOL_SOCKET, unix.SO_LINGER, linger, ofInet | ofUnix, false},
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT, number, ofInet | ofPacket, false},
	{unix.SOL_SOCKET, unix.SO_RCVTIMEO, timeval, ofAll, false},
	{unix.SOL_SOCKET, unix.SO_SNDTIMEO, timeval, ofAll, false},
	{unix.SOL_SOCKET, unix.SO_PRIORITY, number, ofInet | ofPacket, false},
	{unix.SOL_SOCKET, unix.SO_MARK, number, ofInet | ofPacket, false},
	{unix.SOL_SOCKET, unix.SO_DONTROUTE, number, ofInet, false},
	{unix.SOL_SOCKET, unix.SO_PASSCRED, number, ofUnix | ofNetlink, false},
	{unix.SOL_SOCKET, unix.SO_PASSSEC, number, ofUnix, false},
	{unix.SOL_SOCKET, soPassPidfd, number, ofUnix, false},
	{unix.SOL_SOCKET, soPassRights, number, ofUnix, false},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMP, number, ofInet | ofUnix | ofPacket, false},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, number, ofInet | ofUnix | ofPacket, false},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPING, number, ofUDP | ofPacket, false},
	{unix.SOL_SOCKET, unix.SO_RXQ_OVFL, number, ofUDP | ofPacket, false},
	{unix.SOL_SOCKET, unix.SO_NO_CHECK, number, ofUDP, false},
	{unix.SOL_SOCKET, unix.SO_BUSY_POLL, number, ofInet | ofPacket, false},
	{unix.SOL_SOCKET, unix.SO_ZEROCOPY, number, ofInet, false},
	{unix.IPPROTO_IP, unix.IP_TOS, number, ofInet, false},
	{unix.IPPROTO_IP, unix.IP_TTL, number, ofInet, false},
	{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, number, ofInet, false},
	{unix.IPPROTO_IP, unix.IP_RECVERR, number, ofInet, false},
	{unix.IPPROTO_IP, unix.IP_PKTINFO, number, ofUDP, false},
	{unix.IPPROTO_IP, unix.IP_RECVTOS, number, ofUDP, false},
	{unix.IPPROTO_IP, unix.IP_RECVTTL, number, ofUDP, false},
	{unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR, number, ofUDP, false},
	{unix.IPPROTO_IP, unix.IP_FREEBIND, number, ofInet, false},
	{unix.IPPROTO_IP, unix.IP_TRANSPARENT, number, ofInet, false},
	{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, number, ofInet, false},
	{unix.IPPROTO_IP, unix.IP_MINTTL, number, ofInet, false},
	{unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, number, ofUDP, false},
	{unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, number, ofUDP, false},
	{unix.IPPROTO_IP, unix.IP_MULTICAST_IF, number, ofUDP, false},
	{unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, number, ofUDP, false},
	{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, number, ofInet | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, number, ofInet | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, number, ofInet | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, number, ofInet | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, number, ofInet | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, number, ofUDP | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, number, ofUDP | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, number, ofUDP | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, number, ofUDP | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, number, ofUDP | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, number, ofUDP | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, number, ofUDP | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, number, ofInet | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, number, ofInet | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_AUTOFLOWLABEL, number, ofInet | inet6, false},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_CORK, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_SYNCNT, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_LINGER2, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN, number, ofTCP, false},
	{unix.IPPROTO_TCP, unix.TCP_CONGESTION, 16, ofTCP, true},
	{unix.IPPROTO_UDP, 1, number, ofUDP, false},   // UDP_CORK
	{unix.IPPROTO_UDP, 101, number, ofUDP, false}, // UDP_NO_CHECK6_TX
	{unix.IPPROTO_UDP, 102, number, ofUDP, false}, // UDP_NO_CHECK6_RX
	{unix.IPPROTO_UDP, 103, number, ofUDP, false}, // UDP_SEGMENT
	{unix.IPPROTO_UDP, 104, number, ofUDP, false}, // UDP_GRO
	{unix.IPPROTO_IP, unix.IP_HDRINCL, number, ofRaw, false},
	{unix.SOL_RAW, 1, number, ofRaw, false}, // ICMP_FILTER
	{unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, 32, ofRaw | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_CHECKSUM, number, ofRaw | inet6, false},
	{unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, number, ofRaw | inet6, false},
	{unix.SOL_PACKET, unix.PACKET_VERSION, number, ofPacket, false},
	{unix.SOL_PACKET, unix.PACKET_RESERVE, number, ofPacket, false},
	{unix.SOL_PACKET, unix.PACKET_AUXDATA, number, ofPacket, false},
	{unix.SOL_PACKET, unix.PACKET_ORIGDEV, number, ofPacket, false},
	{unix.SOL_PACKET, unix.PACKET_LOSS, number, ofPacket, false},
	{unix.SOL_PACKET, unix.PACKET_VNET_HDR, number, ofPacket, false},
	{unix.SOL_PACKET, packetVNetHeaderSize, number, ofPacket, false},
	{unix.SOL_PACKET, unix.PACKET_TIMESTAMP, number, ofPacket, false},
	{unix.SOL_PACKET, unix.PACKET_TX_HAS_OFF, number, ofPacket, false},
	{unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, number, ofPacket, false},
	{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, number, ofPacket, false},
	{solNetlink, 3, number, ofNetlink, false},  // NETLINK_PKTINFO
	{solNetlink, 4, number, ofNetlink, false},  // NETLINK_BROADCAST_ERROR
	{solNetlink, 5, number, ofNetlink, false},  // NETLINK_NO_ENOBUFS
	{solNetlink, 10, number, ofNetlink, false}, // NETLINK_CAP_ACK
	{solNetlink, 11, number, ofNetlink, false}, // NETLINK_EXT_ACK
	{solNetlink, 12, number, ofNetlink, false}, // NETLINK_GET_STRICT_CHK
}

// buffers are sized by the program if their bit of SO_BUF_LOCK is set. The
// kernel doubles what it is given.
var buffers = []struct{ name, bit int }{{unix.SO_SNDBUF, 1}, {unix.SO_RCVBUF, 2}}

// kindOf tells which options a socket has.
func kindOf(family, typ int) families {
	switch {
	case family == unix.AF_UNIX:
		return ofUnix
	case family == unix.AF_NETLINK:
		return ofNetlink
	case family == unix.AF_PACKET:
		return ofPacket
	case typ == unix.SOCK_STREAM:
		return ofTCP
	case typ == unix.SOCK_RAW:
		return ofUDP | ofRaw
	}
	return ofUDP
}

func (o *option) applies(family, typ int) bool {
	return o.of&kindOf(family, typ) != 0 && (o.of&inet6 == 0 || family == unix.AF_INET6)
}

// lookUp finds an option that may be set, nil if it may not.
func lookUp(level, name, family, typ int) *option {
	for i := range table {
		if o := &table[i]; o.level == level && o.name == name && o.applies(family, typ) {
			return o
		}
	}
	for _, b := range buffers {
		if level == unix.SOL_SOCKET && name == b.name {
			return &option{level: level, name: name, size: number}
		}
	}
	return nil
}

// get reads an option; nil if this kernel or this socket does not have it.
func get(fd, level, name, size int) ([]byte, error) {
	b := make([]byte, max(size, longestValue))
	n := uint32(size)
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	switch {
	case e == unix.ENOPROTOOPT || e == unix.EOPNOTSUPP || e == unix.EINVAL || e == unix.ENOTCONN:
		return nil, nil
	case e != 0:
		return nil, fmt.Errorf("getsockopt(%d, %d): %w", level, name, e)
	}
	return b[:min(int(n), size)], nil
}

// values are the options of the table, nil for those that a socket of this kind does
// not have.
func values(fd, family, typ int) ([][]byte, error) {
	out := make([][]byte, len(table))
	for i := range table {
		o := &table[i]
		if !o.applies(family, typ) {
			continue
		}
		b, err := get(fd, o.level, o.name, o.size)
		if err != nil {
			return nil, err
		}
		if o.text {
			b = cut(b)
		}
		out[i] = b
	}
	return out, nil
}

// changed lists the options in which the socket differs from a new one, whose values
// are known.
func changed(fd int, fresh [][]byte, family, typ int) ([]*state.SocketOption, error) {
	now, err := values(fd, family, typ)
	if err != nil {
		return nil, err
	}
	var out []*state.SocketOption
	for i, is := range now {
		o, was := &table[i], fresh[i]
		if is != nil && !bytes.Equal(is, was) {
			out = append(out, &state.SocketOption{Level: uint32(o.level), Name: uint32(o.name), Value: is})
		}
	}
	lock, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, soBufLock)
	if err != nil {
		return out, nil // before Linux 5.16: sizes are the kernel's business
	}
	for _, b := range buffers {
		if lock&b.bit == 0 {
			continue
		}
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, b.name)
		if err != nil {
			return nil, err
		}
		out = append(out, &state.SocketOption{Level: unix.SOL_SOCKET, Name: uint32(b.name), Value: int32Bytes(n / 2)})
	}
	return out, nil
}

// cut ends a text at its NUL byte.
func cut(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

func int32Bytes(n int) []byte {
	return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
}
