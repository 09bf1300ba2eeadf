// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netdrop"
	"github.com/io-mig/mig/layers/kernel/packet"
)

// TestWhoWasAnsweredIsNotHeld: of new connections that come when they begin to be held,
// those that the kernel has answered do not come again, and those that it has not do,
// whatever has become of them meanwhile.
func TestWhoWasAnsweredIsNotHeld(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		inNamespace(t, func() error {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			defer l.Close()
			at := l.Addr().(*net.TCPAddr).AddrPort()
			h, err := newHold(at.Port())
			if err != nil {
				return err
			}
			if err := h.in(h.listen); err != nil {
				return err
			}
			// It has ended without a trace by the time that somebody asks.
			answered, err := visit(l)
			if err != nil {
				return err
			}
			if err := h.in(h.beginDrop); err != nil {
				return err
			}
			if len(h.doubtful) != 1 {
				t.Errorf("%d SYNs are doubtful, want that of %v", len(h.doubtful), answered)
			}
			// One whose SYN was read before the end of the drop's beginning is among the
			// doubtful, too.
			early, err := knock(t, at)
			if err != nil {
				return err
			}
			if err := h.each(func(p packet.Packet, _ packet.Header) { h.doubtful = append(h.doubtful, p.Data) }); err != nil {
				return err
			}
			go h.run()
			later, err := knock(t, at)
			if err != nil {
				return err
			}
			for end := time.Now().Add(patience); h.count() < 2 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			h.stop()
			var held []netip.AddrPort
			for _, b := range h.kept {
				head, _ := packet.Parse(b)
				held = append(held, head.Source)
			}
			if len(held) != 2 || !slices.Contains(held, early) || !slices.Contains(held, later) {
				t.Errorf("held are the SYNs of %v, want those of %v and %v, which were dropped, and not that of %v, which was answered", held, early, later, answered)
			}
			return errors.Join(netdrop.Pass(h.added), h.close())
		})
	}
}

// TestWhoAsksAgainIsHeldOnce: a SYN that was sent again is not held, one of another
// connection with the same addresses is.
func TestWhoAsksAgainIsHeldOnce(t *testing.T) {
	h := &hold{silence: netdrop.Silence{Listeners: []uint16{80}}}
	sent := func(from uint16, sequence uint32) {
		b := make([]byte, 40)
		b[0], b[3], b[9], b[32], b[33] = 4<<4|5, 40, unix.IPPROTO_TCP, 5<<4, 1<<1 // SYN
		binary.BigEndian.PutUint16(b[20:], from)
		binary.BigEndian.PutUint16(b[22:], 80)
		binary.BigEndian.PutUint32(b[24:], sequence)
		head, ok := packet.Parse(b)
		if !ok || !head.New {
			t.Fatal("no SYN")
		}
		h.sort(packet.Packet{Data: b}, head)
	}
	for range 2 {
		sent(1, 7)
		sent(1, 8)
		sent(2, 7)
	}
	if len(h.kept) != 3 {
		t.Errorf("%d SYNs are held, want 3", len(h.kept))
	}
	for i := range uint32(mostAsking) {
		sent(3, i)
	}
	if len(h.asking) != mostAsking || len(h.kept) != 3+mostAsking {
		t.Errorf("%d SYNs are held, want %d, %d of them known, want %d", len(h.kept), 3+mostAsking, len(h.asking), mostAsking)
	}
}

// newHold is one of the thread's network namespace and of a listener's port.
func newHold(port uint16) (*hold, error) {
	h := &hold{silence: netdrop.Silence{Listeners: []uint16{port}}, ended: make(chan struct{})}
	var err error
	if h.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	h.wake = os.NewFile(uintptr(fd), "eventfd")
	return h, err
}

func (h *hold) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.kept)
}

// visit is a connection that is opened, accepted and reset, so that no kernel remembers
// it: the client's end.
func visit(l net.Listener) (client netip.AddrPort, err error) {
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return client, err
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		return client, err
	}
	client = c.LocalAddr().(*net.TCPAddr).AddrPort()
	if err := errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close(), s.(*net.TCPConn).SetLinger(0), s.Close()); err != nil {
		return client, err
	}
	found, err := findInet(ends{l.Addr().(*net.TCPAddr).AddrPort(), client})
	if err == nil && found != nil && found.state != stateListen {
		err = errors.New("the kernel remembers a connection that was reset")
	}
	return client, err
}

// knock begins a connection that is not answered: the client's end.
func knock(t *testing.T, at netip.AddrPort) (client netip.AddrPort, err error) {
	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(at.Port())})
	if at.Addr().Is6() {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return client, err
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, to); !errors.Is(err, unix.EINPROGRESS) {
		return client, errors.Join(err, errors.New("it was answered"))
	}
	name, err := unix.Getsockname(fd)
	return addrPort(name), err
}
