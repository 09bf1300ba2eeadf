// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netdrop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/packet"
)

// street is a network namespace with an interface, and somebody behind it whose
// segments the test forges.
type street struct {
	t        *testing.T
	at       netip.Addr // address here
	client   netip.Addr
	fd       int    // sends packets to the interface
	hardware []byte // its address
	index    int    // that of its other end
	sent     *packet.Capture
	listener int // of every address, at listenPort
	// own is another one, of the address alone, at ownPort.
	own int
}

const listenPort, ownPort, closedPort = 80, 81, 82

// onStreet runs a test for IPv4 and IPv6.
func onStreet(t *testing.T, fn func(s *street) error) {
	for name, s := range map[string]*street{
		"IPv4": {at: netip.MustParseAddr("10.77.0.50"), client: netip.MustParseAddr("10.77.0.2")},
		"IPv6": {at: netip.MustParseAddr("fd77::50"), client: netip.MustParseAddr("fd77::2")},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			kerneltest.InNetwork(t, func() error { return s.open(fn) })
		})
	}
}

func (s *street) open(fn func(*street) error) (err error) {
	err = exec.Command("sh", "-ec", `ip link set lo up; ip link add eth0 type veth peer name far; ip link set far up; ip addr add 10.77.0.50/24 dev eth0
		ip -6 addr add fd77::50/64 dev eth0 nodad; ip link set eth0 up
		for a in 10.77.0.2 fd77::2; do ip neigh replace $a lladdr 02:00:00:00:00:02 dev eth0 nud permanent; done`).Run()
	if err != nil {
		return err
	}
	near, err1 := net.InterfaceByName("eth0")
	far, err2 := net.InterfaceByName("far")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	s.hardware, s.index = near.HardwareAddr, far.Index
	if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	defer unix.Close(s.fd)
	if s.sent, err = packet.OpenSent(); err != nil {
		return err
	}
	defer s.sent.Close()
	if s.listener, err = s.listen(unix.AF_INET6, &unix.SockaddrInet6{Port: listenPort}); err != nil {
		return err
	}
	defer unix.Close(s.listener)
	if s.own, err = s.listen(s.family(), sockaddr(netip.AddrPortFrom(s.at, ownPort))); err != nil {
		return err
	}
	defer unix.Close(s.own)
	return fn(s)
}

func (s *street) family() int {
	if s.at.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func (s *street) listen(family int, at unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	return fd, errors.Join(unix.Bind(fd, at), unix.Listen(fd, 16))
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// from is a connection of the client's.
func (s *street) from(port, to uint16) Connection {
	return Connection{netip.AddrPortFrom(s.client, port), netip.AddrPortFrom(s.at, to)}
}

// arrives has a segment arrive by the interface.
func (s *street) arrives(c Connection, flags byte) error {
	be, b, kind := binary.BigEndian, segment(c, flags), uint16(unix.ETH_P_IP)
	const hops = 64
	if s.at.Is4() {
		header := []byte{4<<4 | 5, 0, 0, byte(20 + len(b)), 0, 0, 0, 0, hops, unix.IPPROTO_TCP, 0, 0}
		header = slices.Concat(header, c.Source.Addr().AsSlice(), c.Destination.Addr().AsSlice())
		sum := uint32(0)
		for i := 0; i < len(header); i += 2 {
			sum += uint32(be.Uint16(header[i:]))
		}
		be.PutUint16(header[10:], ^uint16(sum+sum>>16))
		b = append(header, b...)
	} else {
		kind = unix.ETH_P_IPV6
		header := []byte{6 << 4, 0, 0, 0, 0, byte(len(b)), unix.IPPROTO_TCP, hops}
		b = slices.Concat(header, c.Source.Addr().AsSlice(), c.Destination.Addr().AsSlice(), b)
	}
	to := &unix.SockaddrLinklayer{Protocol: kind<<8 | kind>>8, Ifindex: s.index, Halen: 6}
	copy(to.Addr[:], s.hardware)
	return unix.Sendto(s.fd, b, 0, to)
}

func segment(c Connection, flags byte) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint16(nil, c.Source.Port()), c.Destination.Port())
	b = be.AppendUint32(be.AppendUint32(b, 1000), 2000)
	b = append(b, 5<<4, flags, 1, 0, 0, 0, 0, 0)
	be.PutUint16(b[16:], packet.Sum(c.Source.Addr(), c.Destination.Addr(), unix.IPPROTO_TCP, b))
	return b
}

// last is a connection that is known in every test, by whose reset the test learns that
// all that was to leave before has left.
func (s *street) last() Connection { return s.from(9999, closedPort) }

// told are the connections for which a reset has left by now, and the flags.
func (s *street) told() (list map[Connection]byte, err error) {
	if err := s.arrives(s.last(), ack); err != nil {
		return nil, err
	}
	list = map[Connection]byte{}
	for end := time.Now().Add(10 * time.Second); ; {
		p, ok, err := s.sent.Read()
		if err != nil {
			return nil, err
		}
		if !ok {
			if time.Now().After(end) {
				return nil, errors.New("no reset leaves for a connection that is known")
			}
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(s.sent.FD()), Events: unix.POLLIN}}, 100); err != nil && !errors.Is(err, unix.EINTR) {
				return nil, err
			}
			continue
		}
		h, _ := packet.Parse(p.Data)
		at := 20
		if s.at.Is6() {
			at = 40
		}
		c := Connection{h.Destination, h.Source}
		if flags := p.Data[at+tcpFlags]; h.Protocol == unix.IPPROTO_TCP && flags&rst != 0 {
			if c == s.last() {
				return list, nil
			}
			list[c] = flags
		}
	}
}

// tells checks for which of some connections a reset leaves when an ACK arrives, by
// which the kernel cannot know them.
func (s *street) tells(what string, want bool, connections ...Connection) error {
	for _, c := range connections {
		if err := s.arrives(c, ack); err != nil {
			return err
		}
	}
	list, err := s.told()
	if err != nil {
		return err
	}
	for _, c := range connections {
		if flags, ok := list[c]; ok != want || ok && flags&ack != 0 {
			s.t.Errorf("%s: %v: reset: %v (flags %#x), want %v", what, c, ok, flags, want)
		}
	}
	return nil
}

// TestHush: whoever comes late to whatever port is told nothing, while it lasts.
func TestHush(t *testing.T) {
	onStreet(t, func(s *street) error {
		strangers := []Connection{s.from(1000, listenPort), s.from(1001, ownPort), s.from(1002, closedPort)}
		h, err := NewHush(nil)
		if err != nil {
			return err
		}
		if err := s.tells("before it begins", true, strangers...); err != nil {
			return err
		}
		// Twice, and one of the other family.
		if err := h.Begin([]Connection{s.last(), s.last(), s.from(1, listenPort), {netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[fd00::2]:1")}}); err != nil {
			return err
		}
		if err := errors.Join(s.tells("a stranger", false, strangers...), s.tells("who is known", true, s.from(1, listenPort))); err != nil {
			return err
		}
		file, err := h.File()
		if err != nil {
			return err
		}
		h.Close()
		if err := s.tells("while somebody has the owner", false, strangers...); err != nil {
			return err
		}
		if err := errors.Join(file.Close(), noTables(t)); err != nil {
			return err
		}
		return s.tells("when it is over", true, strangers...)
	})
}

// TestHushLetsOut: what is said of connections that are opened, by whichever end,
// leaves, and who knocks at a closed door is told so.
func TestHushLetsOut(t *testing.T) {
	onStreet(t, func(s *street) error {
		h, err := NewHush(nil)
		if err != nil {
			return err
		}
		defer h.Close()
		before := s.from(2000, listenPort)
		if err := errors.Join(s.arrives(before, syn), h.Begin([]Connection{s.last()})); err != nil {
			return err
		}
		after := s.from(2001, listenPort)
		if err := errors.Join(s.arrives(after, syn), s.tells("a handshake that goes wrong", true, before, after)); err != nil {
			return err
		}
		out, err := s.connecting(3000)
		if err != nil {
			return err
		}
		if err := s.tells("an old connection in the way of one from here", true, out); err != nil {
			return err
		}
		if err := s.tells("an answer to what nobody here has asked", false, s.from(3000, 3001)); err != nil {
			return err
		}
		refused := s.from(2002, closedPort)
		if err := s.arrives(refused, syn); err != nil {
			return err
		}
		list, err := s.told()
		if err == nil && list[refused] != rst|ack {
			s.t.Errorf("resets have left for %v, want one of a closed port", list)
		}
		return err
	})
}

// connecting is a connection that a socket here begins, and is not answered.
func (s *street) connecting(to uint16) (c Connection, err error) {
	fd, err := unix.Socket(s.family(), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return c, err
	}
	s.t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(s.client, to))); !errors.Is(err, unix.EINPROGRESS) {
		return c, fmt.Errorf("connect: %w", err)
	}
	name, err := unix.Getsockname(fd)
	return Connection{netip.AddrPortFrom(s.client, to), address(name)}, err
}

// TestHushOfPorts: where others have connections, some ports are meant.
func TestHushOfPorts(t *testing.T) {
	onStreet(t, func(s *street) error {
		h, err := NewHush([]uint16{listenPort, ownPort})
		if err != nil {
			return err
		}
		defer h.Close()
		opened := s.from(2000, listenPort)
		if err := errors.Join(h.Begin(nil), s.arrives(opened, syn)); err != nil {
			return err
		}
		return errors.Join(s.tells("of the ports", false, s.from(1000, listenPort), s.from(1001, ownPort)),
			s.tells("of another port, or known", true, s.from(1002, closedPort), opened))
	})
}

// TestTwoHushes: what one of two knows is told, and what neither does is not.
func TestTwoHushes(t *testing.T) {
	onStreet(t, func(s *street) error {
		for _, known := range []Connection{s.last(), s.from(1, listenPort)} {
			h, err := NewHush(nil)
			if err != nil {
				return err
			}
			defer h.Close()
			if err := h.Begin([]Connection{known}); err != nil {
				return err
			}
		}
		third, err := NewHush([]uint16{ownPort})
		if err != nil {
			return err
		}
		defer third.Close()
		return errors.Join(third.Begin(nil), s.tells("known to one", true, s.from(1, listenPort)),
			s.tells("known to none", false, s.from(1000, listenPort), s.from(1001, ownPort)))
	})
}

// TestHushIsFull: who opens more connections than can be known is told everything.
func TestHushIsFull(t *testing.T) {
	onStreet(t, func(s *street) error {
		h, err := NewHush(nil)
		if err != nil {
			return err
		}
		defer h.Close()
		known := []Connection{s.last()}
		port := func(i int) Connection { // none is another's
			return s.from(uint16(20000+i%40000), uint16(100+i/40000))
		}
		const most = 4 * roomOfSet
		for len(known) < most {
			known = append(known, port(len(known)))
		}
		if err := h.Begin(append(slices.Clone(known), s.from(1, 1))); err == nil {
			t.Error("one more than there is room for")
		}
		begun := time.Now()
		if err := h.Begin(known); err != nil {
			return err
		}
		t.Logf("%d connections have taken %s", len(known), time.Since(begun))
		stranger := s.from(1000, listenPort)
		const rest = 4 * (0xffff - roomOfSet)
		for i := range rest {
			if err := s.arrives(port(most+i), syn); err != nil {
				return err
			}
		}
		if err := s.tells("all that there is room for are known, and others", false, stranger); err != nil {
			return err
		}
		if err := s.tells("those", true, port(1), port(most), port(most+rest-1)); err != nil {
			return err
		}
		return errors.Join(s.arrives(s.from(1001, listenPort), syn), s.tells("with one more", true, stranger))
	})
}

// noTables waits until there are none: the kernel frees them when the owner has gone.
func noTables(t *testing.T) error {
	t.Helper()
	n, err := open()
	if err != nil {
		return err
	}
	defer n.close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		left := 0
		if err := n.dump(unix.NFT_MSG_GETTABLE, unix.AF_UNSPEC, nil, func([]byte) { left++ }); err != nil || left == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d tables are left", left)
		}
	}
}
