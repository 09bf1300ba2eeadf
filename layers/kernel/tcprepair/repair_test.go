// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tcprepair

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
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
