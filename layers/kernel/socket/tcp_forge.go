// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/packet"
)

// forgePatience bounds the wait for a segment over the loopback.
const forgePatience = 2 * time.Second

var errForged = errors.New("the kernel does not take the segment: does a packet filter drop what comes over the loopback?")

// endOther lets the kernel receive the end of the other stream once more: the
// other end, on another host, had sent it before, and had the acknowledgment. It
// must be called in the connection's network namespace.
func (r *rising) endOther() error {
	return r.forge([]segment{{sequence: r.msg.Tcp.ReceiveNext, flags: tcpFIN | tcpACK}}, func() (bool, error) {
		b, err := get(r.fd(), unix.IPPROTO_TCP, unix.TCP_INFO, 8)
		if err != nil || len(b) < 8 {
			return false, fmt.Errorf("getsockopt(TCP_INFO): %d bytes: %w", len(b), err)
		}
		return finReceived(b[0]) || b[0] == stateClose, nil
	})
}

// forgedPart is what a forged segment carries: less than the loopback's MTU.
const forgedPart = 32 << 10

// mark lets the kernel receive once more what was received from the byte out of band
// on (tcp_urgent.go). It must be called in the connection's network namespace.
func (r *rising) mark() error {
	t := r.msg.Tcp
	pointer, err := pointerToFirst()
	if err != nil {
		return err
	}
	var list []segment
	for at := 0; at < len(r.behind); at += forgedPart {
		part := r.behind[at:min(at+forgedPart, len(r.behind))]
		list = append(list, segment{sequence: t.ReceiveNext - uint32(len(r.behind)-at), flags: tcpACK | tcpPSH, data: part})
	}
	list[0].flags, list[0].urgent = list[0].flags|tcpURG, pointer
	err = r.forge(list, func() (bool, error) {
		info, err := unix.GetsockoptTCPInfo(r.fd(), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return false, os.NewSyscallError("getsockopt(TCP_INFO)", err)
		}
		return info.Bytes_received >= uint64(len(r.behind)), nil
	})
	if err != nil || !t.UrgentRead {
		return err
	}
	if _, _, err := unix.Recvfrom(r.fd(), make([]byte, 1), unix.MSG_OOB|unix.MSG_DONTWAIT); err != nil {
		return fmt.Errorf("read the byte out of band, as the program has: %w", err)
	}
	return nil
}

// pointerToFirst is the urgent pointer that means a segment's first byte, by the
// network namespace's net.ipv4.tcp_stdurg: most systems' points behind it.
func pointerToFirst() (uint16, error) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_stdurg")
	if err != nil || strings.TrimSpace(string(b)) == "0" {
		return 1, err
	}
	return 0, nil
}

// forge has segments of the other end arrive and waits until the kernel has them.
func (r *rising) forge(list []segment, arrived func() (bool, error)) error {
	from, to := endpoint(r.msg.Family, r.msg.Remote), endpoint(r.msg.Family, r.msg.Local)
	i, err := packet.NewInjector()
	if err != nil {
		return err
	}
	defer i.Close()
	if err := i.Mark(netdrop.Admitted); err != nil { // what really comes is still dropped
		return err
	}
	for _, s := range list {
		s.acknowledged, s.window = r.acknowledged, r.sendWindow()
		if err := i.Forge(from.Addr(), to.Addr(), unix.IPPROTO_TCP, s.bytes(from, to)); err != nil {
			return err
		}
	}
	for end := time.Now().Add(forgePatience); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if ok, err := arrived(); ok || err != nil {
			return err
		}
	}
	return errForged
}

// sendWindow is what the other end had announced, as segments write it.
func (r *rising) sendWindow() uint16 {
	return uint16(min(r.msg.Tcp.Window.GetSend()>>r.msg.Tcp.SendScale, 65535))
}

// Bits of the flags of a TCP header.
const (
	tcpFIN = 1 << 0
	tcpSYN = 1 << 1
	tcpRST = 1 << 2
	tcpPSH = 1 << 3
	tcpACK = 1 << 4
	tcpURG = 1 << 5
)

// segment is one of TCP (RFC 9293).
type segment struct {
	sequence, acknowledged uint32
	flags                  byte
	window, urgent         uint16
	options                []byte // of four bytes, or a multiple
	data                   []byte
}

func (s *segment) bytes(from, to netip.AddrPort) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(nil, from.Port())
	b = be.AppendUint16(b, to.Port())
	b = be.AppendUint32(b, s.sequence)
	b = be.AppendUint32(b, s.acknowledged)
	words := 5 + len(s.options)/4
	b = append(b, byte(words<<4), s.flags)
	b = be.AppendUint16(b, s.window)
	b = append(b, 0, 0) // checksum
	b = be.AppendUint16(b, s.urgent)
	b = append(append(b, s.options...), s.data...)
	be.PutUint16(b[16:], packet.Sum(from.Addr(), to.Addr(), unix.IPPROTO_TCP, b))
	return b
}
