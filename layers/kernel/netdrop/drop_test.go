// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netdrop

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// inNamespace runs fn in a network namespace of its own, with a loopback that is up.
func inNamespace(t *testing.T, fn func() error) {
	t.Helper()
	kerneltest.InNetwork(t, func() error {
		if err := up(); err != nil {
			return err
		}
		return fn()
	})
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

// pair connects two sockets over the loopback and returns the server's view.
func pair(family int, any unix.Sockaddr) (client, server int, c Connection, err error) {
	l, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, c, err
	}
	defer unix.Close(l)
	err = errors.Join(unix.Bind(l, any), unix.Listen(l, 1))
	name, nameErr := unix.Getsockname(l)
	client, sockErr := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err = errors.Join(err, nameErr, sockErr); err == nil {
		err = unix.Connect(client, name)
	}
	if err != nil {
		return 0, 0, c, err
	}
	server, from, err := unix.Accept(l)
	return client, server, Connection{address(from), address(name)}, err
}

func address(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// readable waits for data.
func readable(fd, ms int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, ms)
	return err == nil && n == 1
}

func TestDropAndPass(t *testing.T) {
	for name, c := range map[string]struct {
		family int
		any    unix.Sockaddr
	}{
		"IPv4": {unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}},
		"IPv6": {unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func() error { return dropAndPass(t, c.family, c.any) })
		})
	}
}

func only(c Connection) Silence { return Silence{Connections: []Connection{c}} }

func dropAndPass(t *testing.T, domain int, any unix.Sockaddr) error {
	client, server, c, err := pair(domain, any)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	otherClient, otherServer, other, err := pair(domain, any)
	if err != nil {
		return err
	}
	defer unix.Close(otherClient)
	if err := errors.Join(Available(), Pass(only(c))); err != nil {
		return err
	}
	for i, d := range []Connection{c, other, c} {
		if added, err := Drop(only(d)); err != nil || added.Empty() != (i == 2) {
			t.Errorf("drop %d: %v, %v", i, added, err)
		}
	}
	if _, err := unix.Write(client, []byte("x")); err != nil {
		return err
	}
	if readable(server, 20) {
		t.Error("what was dropped has come")
	}
	if err := Pass(only(other)); err != nil {
		return err
	}
	if _, err := unix.Write(otherClient, []byte("x")); err != nil {
		return err
	}
	if !readable(otherServer, 5000) {
		t.Error("what was let through has not come")
	}
	if n, err := open(); err != nil {
		return err
	} else if there, err := n.exists(v4); domain == unix.AF_INET && (!there || err != nil) {
		t.Errorf("the table is there: %v, %v", there, err)
	}
	if err := Pass(only(c)); err != nil {
		return err
	}
	if !readable(server, 5000) {
		t.Error("what was sent again has not come")
	}
	n, err := open()
	if err != nil {
		return err
	}
	for _, f := range []family{v4, v6} {
		if there, err := n.exists(f); there || err != nil {
			t.Errorf("the table is still there: %v, %v", there, err)
		}
	}
	return nil
}

// TestDropPorts: neither a new connection nor a datagram comes in, what is there
// already does, and all of that ends.
func TestDropPorts(t *testing.T) {
	for name, c := range map[string]struct {
		family int
		any    unix.Sockaddr
	}{
		"IPv4": {unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}},
		"IPv6": {unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func() error { return dropPorts(t, c.family, c.any) })
		})
	}
}

func dropPorts(t *testing.T, domain int, any unix.Sockaddr) error {
	l, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	u, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(u)
	if err := errors.Join(unix.Bind(l, any), unix.Listen(l, 4), unix.Bind(u, any)); err != nil {
		return err
	}
	tcp, err1 := unix.Getsockname(l)
	udp, err2 := unix.Getsockname(u)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	old, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(old)
	if err := unix.Connect(old, tcp); err != nil {
		return err
	}
	accepted, _, err := unix.Accept(l)
	if err != nil {
		return err
	}
	defer unix.Close(accepted)
	s := Silence{Listeners: []uint16{address(tcp).Port()}, Datagrams: []uint16{address(udp).Port(), address(udp).Port()}}
	if added, err := Drop(s); err != nil || len(added.Listeners) != 1 || len(added.Datagrams) != 1 {
		t.Errorf("drop: %v, %v", added, err)
	}
	fresh, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fresh)
	if err := unix.Connect(fresh, tcp); !errors.Is(err, unix.EINPROGRESS) {
		t.Errorf("a connect that is dropped: %v", err)
	}
	from, err1 := unix.Getsockname(fresh)
	before, err2 := unix.Getsockname(old)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	knocked, answered := Connection{address(from), address(tcp)}, Connection{address(before), address(tcp)}
	if got, err := Knocked([]Connection{answered, knocked}); err != nil || !got[knocked] || got[answered] {
		t.Errorf("of %v, which was dropped, and %v, which was answered, have knocked: %v, %v", knocked, answered, got, err)
	}
	if err := unix.Sendto(u, []byte("x"), 0, udp); err != nil {
		return err
	}
	if readable(l, 20) || readable(u, 20) {
		t.Error("what was dropped has come")
	}
	if _, err := unix.Write(old, []byte("x")); err != nil {
		return err
	}
	if !readable(accepted, 5000) {
		t.Error("a connection that was there does not go on")
	}
	if err := Pass(s); err != nil {
		return err
	}
	if !readable(l, 5000) { // the kernel asks again after a second
		t.Error("a new connection that was let through has not come")
	}
	if err := unix.Sendto(u, []byte("x"), 0, udp); err != nil {
		return err
	}
	if !readable(u, 5000) {
		t.Error("a datagram that was let through has not come")
	}
	return nil
}

func FuzzParse(f *testing.F) {
	f.Add(make([]byte, 16))
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parse(b)
		if err != nil {
			return
		}
		for _, a := range list {
			addKeys(a.body, map[string]bool{})
		}
	})
}
