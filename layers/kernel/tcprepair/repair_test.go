// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tcprepair

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/netdrop"
)

// connect makes a TCP connection over the loopback.
func connect(t *testing.T) (client, server int) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	defer unix.Close(l)
	must(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(unix.Listen(l, 1))
	name, err := unix.Getsockname(l)
	must(err)
	client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	must(unix.Connect(client, name))
	server, _, err = unix.Accept(l)
	must(err)
	t.Cleanup(func() { unix.Close(client); unix.Close(server) })
	return client, server
}

// TestUndo: a connection whose reader died in repair mode works again.
func TestUndo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: TCP_REPAIR asks for CAP_NET_ADMIN")
	}
	client, server := connect(t)
	if err := unix.SetsockoptInt(client, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := Mark(client, false); err != nil {
		t.Fatal(err)
	}
	if _, err := Enter(client); err != nil {
		t.Fatal(err)
	}
	if err := Mark(client, false); err != nil { // does not take repair mode's own value
		t.Fatal(err)
	}
	if _, err := unix.Write(server, []byte("x")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	if _, err := unix.Read(client, b); !errors.Is(err, unix.EPERM) {
		t.Fatalf("a socket in repair mode reads: %v", err)
	}
	n, err := Undo([]int{os.Getpid(), 1 << 22})
	if n != 1 || err != nil {
		t.Fatalf("%d were in repair mode, %v", n, err)
	}
	if n, err := unix.Read(client, b); n != 1 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if v, err := unix.GetsockoptInt(client, unix.SOL_SOCKET, unix.SO_REUSEADDR); v != 1 || err != nil {
		t.Errorf("SO_REUSEADDR is %d, %v", v, err)
	}
	if n, err := Undo([]int{os.Getpid()}); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
}

// TestPortsAreSeen: what came for ports was dropped when the reader died, also for those of
// Multipath TCP, by which servers in Go listen: all of them are to be let through.
func TestPortsAreSeen(t *testing.T) {
	var want, got netdrop.Silence
	see := func(kind, protocol int, ports *[]uint16) {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, protocol)
		if protocol == unix.IPPROTO_MPTCP && err != nil {
			t.Logf("without Multipath TCP: %v", err)
			return
		}
		if err == nil {
			t.Cleanup(func() { unix.Close(fd) })
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		}
		if err == nil && kind == unix.SOCK_STREAM {
			err = unix.Listen(fd, 8)
		}
		if err != nil {
			t.Fatal(err)
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		*ports = append(*ports, address(name).Port())
		if was, err := undoOne(fd, &got); was || err != nil {
			t.Errorf("protocol %d: in repair mode: %v, %v", protocol, was, err)
		}
	}
	see(unix.SOCK_STREAM, unix.IPPROTO_TCP, &want.Listeners)
	see(unix.SOCK_STREAM, unix.IPPROTO_MPTCP, &want.Listeners)
	see(unix.SOCK_DGRAM, unix.IPPROTO_UDP, &want.Datagrams)
	if !slices.Equal(got.Listeners, want.Listeners) || !slices.Equal(got.Datagrams, want.Datagrams) || len(got.Connections) > 0 {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestMute: a marked connection ends without a word, another one is left alone.
func TestMute(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: TCP_REPAIR asks for CAP_NET_ADMIN")
	}
	kept, keptOther := connect(t)
	own, ownOther := connect(t)
	if err := Mark(kept, true); err != nil {
		t.Fatal(err)
	}
	if err := Mute([]int{os.Getpid(), 1 << 22}); err != nil {
		t.Fatal(err)
	}
	for fd, want := range map[int]bool{kept: true, own: false} {
		if is, err := Active(fd); is != want || err != nil {
			t.Errorf("in repair mode: %v, %v", is, err)
		}
		null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Dup3(null, fd, unix.O_CLOEXEC), unix.Close(null)) // closes it
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for fd, want := range map[int]int{keptOther: 0, ownOther: 1} {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
		if n, err := unix.Poll(p, 50); n != want || err != nil {
			t.Errorf("the other end is told: %d, want %d, %v", n, want, err)
		}
	}
}

// TestSilent: a connection that is closed in repair mode tells nobody.
func TestSilent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: TCP_REPAIR asks for CAP_NET_ADMIN")
	}
	client, server := connect(t)
	if _, err := Enter(client); err != nil {
		t.Fatal(err)
	}
	dup, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	if err := unix.Dup3(dup, client, unix.O_CLOEXEC); err != nil { // closes it
		t.Fatal(err)
	}
	p := []unix.PollFd{{Fd: int32(server), Events: unix.POLLIN | unix.POLLRDHUP}}
	if n, err := unix.Poll(p, 50); n != 0 || err != nil {
		t.Errorf("the other end was told: %#x, %v", p[0].Revents, err)
	}
}
