// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/packet"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// Datagrams that wait in a UDP socket are carried with the addresses of their
// senders. The copy receives them over the loopback, as if they came from there:
// what else the kernel tells of a datagram (IP_PKTINFO, IP_RECVTTL) is the
// loopback's.

// maxDatagrams bounds what is carried of one socket.
const maxDatagrams = 10000

// injectable: what waits in the socket can be received by its copy. Of several
// that share a port the kernel would choose another one, and what is bound to a
// device does not receive from the loopback.
func injectable(fd int) bool {
	shared, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, soReusePort)
	device, deviceErr := get(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, 16)
	return err == nil && shared == 0 && deviceErr == nil && len(cut(device)) == 0
}

// peekDatagrams copies what a UDP socket has received.
func peekDatagrams(fd int) (parts []*state.SocketQueue, err error) {
	if !readable(fd) || !injectable(fd) {
		return nil, nil
	}
	back, err := peekFrom(fd, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, back()) }()
	buf := make([]byte, 1<<16)
	open, size := &state.SocketQueue{}, 0
	for range maxDatagrams {
		n, _, _, from, err := unix.Recvmsg(fd, buf, nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			// An error that waits is told first, and only once.
			return nil, os.NewSyscallError("recvmsg(MSG_PEEK)", err)
		}
		open.Message = append(open.Message, slices.Clone(buf[:n]))
		open.Sender = append(open.Sender, rawSender(from))
		if size += n + 64; size >= queuePart {
			parts, open, size = append(parts, open), &state.SocketQueue{}, 0
		}
	}
	if len(open.Message) > 0 {
		parts = append(parts, open)
	}
	return parts, nil
}

// rawSender is an address behind sa_family: port, address, for IPv6 with
// flow information before and the scope behind it.
func rawSender(from unix.Sockaddr) []byte {
	be := binary.BigEndian
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return append(append(be.AppendUint16(nil, uint16(a.Port)), a.Addr[:]...), make([]byte, 8)...)
	case *unix.SockaddrInet6:
		b := append(be.AppendUint16(nil, uint16(a.Port)), 0, 0, 0, 0)
		b = append(b, a.Addr[:]...)
		return binary.LittleEndian.AppendUint32(b, a.ZoneId)
	}
	return nil
}

// checkSenders: addresses of the socket's family.
func checkSenders(m *state.Socket, q *state.SocketQueue) error {
	for _, s := range q.Sender {
		if !endpoint(m.Family, s).IsValid() {
			return fmt.Errorf("a sender's address of %d bytes", len(s))
		}
	}
	if len(q.Message) > maxDatagrams {
		return fmt.Errorf("%d datagrams", len(q.Message))
	}
	return nil
}

// receiveAgain lets the socket receive its datagrams once more. It must be bound.
// Like those of any network they may not arrive, if a packet filter is in the way.
func (a *arrival) receiveAgain(t *target.Task, fd int) error {
	if len(a.messages) == 0 {
		return nil
	}
	own, err := t.Duplicate(fd)
	if err != nil {
		return err
	}
	defer own.Close()
	name, err := unix.Getsockname(int(own.Fd()))
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	local := addrPort(name)
	return target.InNamespace(t.Proc.Path("ns/net"), func() error {
		in, err := packet.NewInjector()
		if err != nil {
			return err
		}
		defer in.Close()
		for i, data := range a.messages {
			from := endpoint(a.msg.Family, a.senders[i])
			to := netip.AddrPortFrom(destination(local.Addr(), from.Addr()), local.Port())
			if to.Addr().Is4() != from.Addr().Is4() || from.Addr().IsLinkLocalUnicast() {
				continue // lost: it does not say on which link the sender is
			}
			if err := in.Forge(from.Addr(), to.Addr(), unix.IPPROTO_UDP, udpDatagram(from, to, data)); err != nil {
				return fmt.Errorf("a datagram that was not read: %w", err)
			}
		}
		return nil
	})
}

// destination is where a datagram to a socket goes; one that has no address of
// its own has all of them.
func destination(local, from netip.Addr) netip.Addr {
	switch {
	case !local.IsUnspecified():
		return local
	case from.Is4():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// udpDatagram is a datagram with its header (RFC 768).
func udpDatagram(from, to netip.AddrPort, data []byte) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(nil, from.Port())
	b = be.AppendUint16(b, to.Port())
	b = be.AppendUint16(b, uint16(8+len(data)))
	b = append(append(b, 0, 0), data...)
	sum := packet.Sum(from.Addr(), to.Addr(), unix.IPPROTO_UDP, b)
	if sum == 0 {
		sum = 0xffff // 0 stands for none
	}
	be.PutUint16(b[6:], sum)
	return b
}
