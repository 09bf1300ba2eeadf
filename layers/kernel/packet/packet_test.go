// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inNamespace runs fn on a thread in a network namespace of its own, with a
// loopback that is up.
func inNamespace(t *testing.T, fn func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a network namespace")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = up()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// up sets IFF_UP of the loopback.
func up() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var r [40]byte // struct ifreq
	copy(r[:], "lo")
	binary.NativeEndian.PutUint16(r[16:], unix.IFF_UP|unix.IFF_RUNNING)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&r[0]))); e != 0 {
		return e
	}
	return nil
}

// TestAgain: datagrams that were taken arrive once more, with the address of their
// sender, of every size.
func TestAgain(t *testing.T) {
	for name, any := range map[string]unix.Sockaddr{
		"IPv4": &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}},
		"IPv6": &unix.SockaddrInet6{Addr: [16]byte{15: 1}},
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
		from, to := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
		if err := i.Forge(from.Addr(), to.Addr(), unix.IPPROTO_UDP, []byte{0, 1, 0, 2, 0, 8, 0, 0}); err != nil {
			t.Logf("the kernel says: %v", err)
		}
		s, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		for line := range bytes.Lines(s) {
			if bytes.HasPrefix(line, []byte("UdpMsg")) || bytes.HasPrefix(line, []byte("IcmpMsg")) {
				t.Errorf("somebody answers: %s", line)
			}
		}
		return nil
	})
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
