// SPDX-License-Identifier: Apache-2.0

package socket_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/socket"
)

// TestConnectionsWithin: both ends are in the container, in every state that
// lasts, with data in all queues. The original goes on, then copies of copies.
func TestConnectionsWithin(t *testing.T) {
	t.Run("left running", func(t *testing.T) {
		c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/tcp.c"})
		for range 3 {
			c.Verify()
			if _, err := c.Export(true, with(nil)...); err != nil {
				t.Fatal(err)
			}
		}
		c.Verify()
	})
	t.Run("moved", func(t *testing.T) {
		kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/tcp.c", Generations: 4}, with(nil)...)
	})
	t.Run("of an unprivileged user", func(t *testing.T) {
		kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/tcp.c", UID: 1000, GID: 1000, Generations: 2}, with(nil)...)
	})
}

// TestUrgent: bytes out of band, unread and read, between connections of the
// container and of the test.
func TestUrgent(t *testing.T) {
	t.Run("left running", func(t *testing.T) {
		c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/urgent.c", Args: []string{"0"}})
		for range 2 {
			if _, err := c.Export(true, with(nil)...); err != nil {
				t.Fatal(err)
			}
			c.Verify()
		}
	})
	t.Run("within", func(t *testing.T) {
		kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/urgent.c", Args: []string{"0"}, Generations: 3}, with(nil)...)
	})
	t.Run("outside", func(t *testing.T) {
		keep := with(map[string]string{socket.OptionTCP: socket.TCPKeep})
		kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/urgent.c", Args: []string{urgency(t)}, Generations: 3}, keep...)
	})
}

// listen listens on the loopback, hands each connection to a take of its own, and
// returns its port.
func listen(t *testing.T, take func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go take(c.(*net.TCPConn))
		}
	}()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// urgency sends to each client what it asks for: so many bytes, one out of band, and
// so many more, and the end of the stream. It returns its port.
func urgency(t *testing.T) string {
	t.Helper()
	return listen(t, func(c *net.TCPConn) {
		t.Cleanup(func() { c.Close() })
		var before, behind, ended int
		if _, err := fmt.Fscanln(c, &before, &behind, &ended); err != nil {
			t.Errorf("a client asks: %v", err)
			return
		}
		raw, err := c.SyscallConn()
		if err == nil {
			err = raw.Write(func(fd uintptr) bool {
				err = unix.Sendto(int(fd), append(bytes.Repeat([]byte{'a'}, before), '!'), unix.MSG_OOB, nil)
				return true
			})
		}
		if err != nil {
			t.Errorf("send out of band: %v", err)
		}
		if _, err := c.Write(bytes.Repeat([]byte{'z'}, behind)); err != nil {
			t.Errorf("send: %v", err)
		}
		if ended != 0 {
			_ = c.CloseWrite()
		}
	})
}

// echo sends back what it gets, and returns its port.
func echo(t *testing.T) string {
	t.Helper()
	return listen(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c); c.Close() })
}

func TestConnectionIsRefusedByName(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/connection.c", Args: []string{echo(t)}})
	_, err := c.Export(true, with(nil)...)
	if err == nil || !strings.Contains(err.Error(), "TCP connection 127.0.0.1:") || !strings.Contains(err.Error(), "tcp=close") {
		t.Fatalf("export says: %v", err)
	}
	c.Verify()
}

func TestConnectionIsClosedByPolicy(t *testing.T) {
	all := with(map[string]string{socket.OptionTCP: socket.TCPClose})
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/connection.c", Args: []string{echo(t), "closed"}})
	c.Verify()
	for range 3 {
		n, err := c.Next(all...)
		if err != nil {
			t.Fatal(err)
		}
		n.Verify()
		c = n
	}
}
