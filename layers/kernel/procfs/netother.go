// SPDX-License-Identifier: Apache-2.0

package procfs

import "bytes"

// UnixSocket is one line of net/unix (net/unix/af_unix.c, unix_seq_show).
type UnixSocket struct {
	RefCount uint32
	Flags    uint32 // 0x10000: listening
	Type     uint16 // SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_SEQPACKET 5
	State    uint8  // 1 unconnected, 2 connecting, 3 connected, 4 disconnecting
	Inode    uint64
	// Path as bound: relative paths stay relative, and an abstract name has
	// "@" in place of each zero byte, its first included. Use sock_diag(7)
	// for the exact bytes.
	Path string
}

// unixListening is __SO_ACCEPTCON.
const unixListening = 1 << 16

// Listening reports whether listen(2) has been called.
func (u *UnixSocket) Listening() bool { return u.Flags&unixListening != 0 }

// ParseUnix reads net/unix. The kernel prints names as they are, newlines
// included, so any program can make this file show sockets that do not exist:
// take it as a hint and ask sock_diag(7) or the socket itself for facts. A
// line that does not begin like a socket continues the name above it.
func ParseUnix(data []byte) ([]UnixSocket, error) {
	var p unixParser
	if err := eachLine("net/unix", data, p.line); err != nil {
		return nil, err
	}
	return p.table.out, nil
}

// UnixSockets reads net/unix; see ParseUnix for how far to trust it.
func (t Task) UnixSockets() ([]UnixSocket, error) {
	var p unixParser
	if err := t.fs.stream(t.file("net/unix"), p.line); err != nil {
		return nil, err
	}
	return p.table.out, nil
}

type unixParser struct{ table table[UnixSocket] }

func (p *unixParser) line(line []byte) error {
	p.table.heading, p.table.row = "Num ", unixRow
	if n := len(p.table.out); n > 0 && !looksLikeUnix(line) {
		if s := &p.table.out[n-1]; len(s.Path)+len(line) < maxUnixPath {
			s.Path += "\n" + string(line)
			return nil
		}
	}
	return p.table.line(line)
}

// maxUnixPath is the size of sun_path: no name is longer.
const maxUnixPath = 108

// looksLikeUnix: a kernel pointer (8 or 16 digits), a colon, a blank.
func looksLikeUnix(line []byte) bool {
	pointer, rest, ok := bytes.Cut(line, []byte(": "))
	if !ok || len(rest) < 8 || len(pointer) != 8 && len(pointer) != 16 {
		return false
	}
	_, err := parseUint(pointer, 16, 64)
	return err == nil
}

func unixRow(c *cursor) UnixSocket {
	var s UnixSocket
	c.skip()
	c.number(c.until(':', "address"), 16, 64, "address")
	s.RefCount = c.hex32("reference count")
	c.hex32("protocol")
	s.Flags = c.hex32("flags")
	s.Type = uint16(c.number(c.field("type"), 16, 16, "type"))
	s.State = uint8(c.number(c.field("state"), 16, 8, "state"))
	s.Inode = c.dec("inode")
	if len(c.rest) > 0 {
		c.literal(" ")
		s.Path = string(c.rest)
	}
	return s
}

// NetlinkSocket is one line of net/netlink.
type NetlinkSocket struct {
	Protocol   int // NETLINK_*
	PortID     uint32
	Groups     uint32 // of the first 32
	Rmem, Wmem int64  // bytes queued
	Dump       bool   // a dump is under way
	RefCount   int
	Drops      uint64
	Inode      uint64 // those of the kernel's own sockets are in no fd table
}

// ParseNetlink reads net/netlink (net/netlink/af_netlink.c).
func ParseNetlink(data []byte) ([]NetlinkSocket, error) {
	return netlinkTable().parse("net/netlink", data)
}

// NetlinkSockets reads net/netlink.
func (t Task) NetlinkSockets() ([]NetlinkSocket, error) {
	return netlinkTable().stream(t.fs, t.file("net/netlink"))
}

func netlinkTable() *table[NetlinkSocket] {
	return &table[NetlinkSocket]{heading: "sk ", row: func(c *cursor) NetlinkSocket {
		c.hex("address")
		return NetlinkSocket{Protocol: c.int("protocol"), PortID: c.dec32("port id"), Groups: c.hex32("groups"),
			Rmem: c.int64("rmem"), Wmem: c.int64("wmem"), Dump: c.dec("dump") != 0,
			RefCount: c.int("locks"), Drops: c.dec("drops"), Inode: c.dec("inode")}
	}}
}

// PacketSocket is one line of net/packet.
type PacketSocket struct {
	RefCount  int
	Type      int    // SOCK_RAW 3, SOCK_DGRAM 2
	Protocol  uint16 // ETH_P_*
	Interface int    // index, 0 for all
	Running   bool
	Rmem      uint32
	UID       uint32
	Inode     uint64
}

// ParsePacket reads net/packet (net/packet/af_packet.c).
func ParsePacket(data []byte) ([]PacketSocket, error) {
	return packetTable().parse("net/packet", data)
}

// PacketSockets reads net/packet.
func (t Task) PacketSockets() ([]PacketSocket, error) {
	return packetTable().stream(t.fs, t.file("net/packet"))
}

func packetTable() *table[PacketSocket] {
	return &table[PacketSocket]{heading: "sk ", row: func(c *cursor) PacketSocket {
		c.hex("address")
		return PacketSocket{RefCount: c.int("reference count"), Type: c.int("type"),
			Protocol:  uint16(c.number(c.field("protocol"), 16, 16, "protocol")),
			Interface: c.int("interface"), Running: c.dec("running") != 0,
			Rmem: c.dec32("rmem"), UID: c.dec32("uid"), Inode: c.dec("inode")}
	}}
}
