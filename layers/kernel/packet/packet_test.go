// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packet

import (
	"bytes"
	"errors"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// inNamespace runs fn in a network namespace of its own, with a loopback and another
// device that are up.
func inNamespace(t *testing.T, fn func() error) {
	t.Helper()
	kerneltest.InNetwork(t, func() error {
		err := exec.Command("sh", "-ec", `ip link set lo up; ip link add eth0 type veth peer name far; ip link set far up; ip addr add 10.77.0.50/24 dev eth0
			ip -6 addr add fd77::50/64 dev eth0 nodad; ip link set eth0 up`).Run()
		if err != nil {
			return err
		}
		return fn()
	})
}

// TestAgain: datagrams that were taken arrive once more, with the address of their
// sender, of every size.
func TestAgain(t *testing.T) {
	for name, any := range map[string]unix.Sockaddr{
		"IPv4": &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}},
		"IPv6": &unix.SockaddrInet6{Addr: [16]byte{15: 1}},
		// Of another device.
		"IPv4 elsewhere": &unix.SockaddrInet4{Addr: [4]byte{10, 77, 0, 50}},
		"IPv6 elsewhere": &unix.SockaddrInet6{Addr: [16]byte{0: 0xfd, 1: 0x77, 15: 0x50}},
	} {
		t.Run(name, func(t *testing.T) { inNamespace(t, func() error { return again(t, any) }) })
	}
}

func again(t *testing.T, any unix.Sockaddr) error {
	domain := unix.AF_INET
	if _, ok := any.(*unix.SockaddrInet6); ok {
		domain = unix.AF_INET6
	}
	from, err1 := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	to, err2 := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err := errors.Join(err1, err2, unix.Bind(from, any), unix.Bind(to, any)); err != nil {
		return err
	}
	defer unix.Close(from)
	defer unix.Close(to)
	name, err := unix.Getsockname(to)
	if err != nil {
		return err
	}
	sender, err := unix.Getsockname(from)
	if err != nil {
		return err
	}
	c, err := Open()
	if err != nil {
		return err
	}
	defer c.Close()
	i, err := NewInjector()
	if err != nil {
		return err
	}
	defer i.Close()
	begun := time.Now()
	buf := make([]byte, maxPacket)
	for _, size := range []int{0, 1, 2, 3, 1400, 60000} {
		want := bytes.Repeat([]byte{byte(size), 7}, size)[:size]
		if err := unix.Sendto(from, want, 0, name); err != nil {
			return err
		}
		p, ok, err := c.Read()
		if err != nil || !ok {
			t.Fatalf("a datagram of %d bytes was not taken: %v", size, err)
		}
		if p.At.Before(begun) || p.At.After(time.Now()) {
			t.Errorf("it came at %s, not after %s", p.At, begun)
		}
		if err := i.Inject(p.Data); err != nil {
			return err
		}
		if _, ok, err := c.Read(); !ok || err != nil {
			t.Errorf("what arrives once more is not seen: %v", err)
		}
		for range 2 {
			n, who, err := unix.Recvfrom(to, buf, unix.MSG_DONTWAIT)
			if err != nil || !bytes.Equal(buf[:n], want) {
				t.Fatalf("%d bytes of %d have come: %v", n, size, err)
			}
			if !sameAddress(who, sender) {
				t.Errorf("it came from %v, want %v", who, sender)
			}
		}
	}
	return nil
}

func sameAddress(a, b unix.Sockaddr) bool {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		b, ok := b.(*unix.SockaddrInet4)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	case *unix.SockaddrInet6:
		b, ok := b.(*unix.SockaddrInet6)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	}
	return false
}

// TestNoWayOut: a packet for an address that the namespace does not have goes
// nowhere.
func TestNoWayOut(t *testing.T) {
	inNamespace(t, func() error {
		i, err := NewInjector()
		if err != nil {
			return err
		}
		defer i.Close()
		c, err := Open()
		if err != nil {
			return err
		}
		defer c.Close()
		for _, pair := range [][2]string{{"10.77.0.1", "10.77.0.2"}, {"fd77::1", "fd77::2"}} {
			from, to := netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])
			if err := i.Forge(from, to, unix.IPPROTO_UDP, []byte{0, 1, 0, 2, 0, 8, 0, 0}); err != nil {
				t.Logf("%s: %v", to, err)
			}
		}
		out, err := exec.Command("ip", "neigh").CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("it was looked for in the network: %s, %v", out, err)
		}
		return nil
	})
}

// TestPadding: an acknowledgment is shorter than the shortest frame, and is no less one.
func TestPadding(t *testing.T) {
	ack := make([]byte, 40)
	ack[0], ack[3], ack[9], ack[32] = 4<<4|5, 40, unix.IPPROTO_TCP, 5<<4
	if _, ok := Parse(ack); !ok {
		t.Fatal("an acknowledgment is not known")
	}
	for _, n := range []int{0, 6} {
		got := withoutPadding(append(bytes.Clone(ack), make([]byte, n)...))
		if !bytes.Equal(got, ack) {
			t.Errorf("with %d bytes of padding it has %d", n, len(got))
		}
	}
	if got := withoutPadding(ack[:30]); len(got) != 30 {
		t.Errorf("one that is cut off has %d bytes", len(got))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1, 0, 1, 0, 2, 0, 8, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := Parse(b)
		if !ok {
			return
		}
		if h.Source.Addr().BitLen() != h.Destination.Addr().BitLen() || h.transport >= len(b) {
			t.Fatalf("%+v of %d bytes", h, len(b))
		}
		h.finish(b)
	})
}
