// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netdrop

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLate: what is late is dropped, until somebody opens the connection anew, until
// its time is over, or until nobody has the tables' owner any more.
func TestLate(t *testing.T) {
	for name, c := range map[string]struct {
		family int
		any    unix.Sockaddr
	}{
		"IPv4": {unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}},
		"IPv6": {unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func() error {
				return errors.Join(lateUntilOpened(t, c.family, c.any), lateForAWhile(t, c.family, c.any))
			})
		})
	}
}

// arrives tells whether a byte that one end sends comes to the other.
func arrives(t *testing.T, from, to, ms int) bool {
	t.Helper()
	if _, err := unix.Write(from, []byte("x")); err != nil {
		t.Error(err)
	}
	return readable(to, ms)
}

func thereIsLate(t *testing.T) []Ended {
	t.Helper()
	list, err := ListLate()
	if err != nil {
		t.Error(err)
	}
	return list
}

func lateUntilOpened(t *testing.T, family int, any unix.Sockaddr) error {
	client, server, c, err := pair(family, any)
	if err != nil {
		return err
	}
	defer unix.Close(server)
	otherClient, otherServer, _, err := pair(family, any)
	if err != nil {
		return err
	}
	defer unix.Close(otherClient)
	defer unix.Close(otherServer)
	l, err := NewLate()
	if err != nil {
		return err
	}
	// Twice, and no longer than anything is late.
	if err := errors.Join(l.Drop([]Ended{{c, 2 * LateFor}, {c, time.Minute}}), l.Drop([]Ended{{c, LateFor}})); err != nil {
		return err
	}
	if list := thereIsLate(t); len(list) != 1 || list[0].Connection != c || list[0].Left > LateFor || list[0].Left < LateFor-time.Minute {
		t.Errorf("dropped are %v, want %v", list, c)
	}
	if arrives(t, client, server, 20) {
		t.Error("what is late has come")
	}
	if !arrives(t, otherClient, otherServer, 5000) {
		t.Error("what is not late has not come")
	}
	file, err := l.File()
	if err != nil {
		return err
	}
	l.Close()
	if arrives(t, client, server, 20) {
		t.Error("what is late has come, while somebody has the owner")
	}
	if err := openAnew(t, client, server, family, c); err != nil {
		return err
	}
	if list := thereIsLate(t); len(list) != 0 {
		t.Errorf("after a new connection, dropped are %v", list)
	}
	return errors.Join(file.Close(), noTables(t))
}

// openAnew ends a connection and makes another one with the same addresses, by which
// data come.
func openAnew(t *testing.T, client, server, family int, c Connection) error {
	err := errors.Join(unix.SetsockoptLinger(server, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), unix.Close(server), unix.Close(client))
	if err != nil {
		return err
	}
	var fds [2]int
	for i, at := range []netip.AddrPort{c.Destination, c.Source} {
		if fds[i], err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		defer unix.Close(fds[i])
		if err := errors.Join(unix.SetsockoptInt(fds[i], unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fds[i], sockaddr(at))); err != nil {
			return err
		}
	}
	listener, again := fds[0], fds[1]
	if err := unix.Listen(listener, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(again, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return err
	}
	if err := unix.Connect(again, sockaddr(c.Destination)); err != nil {
		return fmt.Errorf("open the connection anew: %w", err)
	}
	accepted, _, err := unix.Accept(listener)
	if err != nil {
		return err
	}
	defer unix.Close(accepted)
	if !arrives(t, again, accepted, 5000) {
		t.Error("nothing comes by a connection that was opened anew")
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
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

// lateForAWhile: what is late comes again by itself when its time is over.
func lateForAWhile(t *testing.T, family int, any unix.Sockaddr) error {
	client, server, c, err := pair(family, any)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	defer unix.Close(server)
	l, err := NewLate()
	if err != nil {
		return err
	}
	const while = 300 * time.Millisecond
	begun := time.Now()
	if err := l.Drop([]Ended{{c, while}}); err != nil {
		return err
	}
	if !arrives(t, client, server, 10_000) {
		t.Error("it does not come although its time is over")
	}
	if took := time.Since(begun); took < while/2 {
		t.Errorf("it has come after %s", took)
	}
	l.Close()
	return noTables(t)
}
