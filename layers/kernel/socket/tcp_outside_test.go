// SPDX-License-Identifier: Apache-2.0

package socket_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/socket"
)

// step is how much testdata/outside.c reads and writes at a time.
const step = 100000

func streamByte(at int) byte { return byte(at*7 + (at>>8)*13 + (at>>16)*17) }

// client is the other end of a connection of testdata/outside.c.
type client struct {
	conn         *net.TCPConn
	number       byte
	wrote, heard int
}

// write sends what the program reads next.
func (c *client) write() error {
	if c.number%4 == 1 && c.wrote > 0 {
		return nil // its stream has ended
	}
	b := make([]byte, step)
	for i := range b {
		b[i] = streamByte(c.wrote + i)
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
	n, err := c.conn.Write(b)
	c.wrote += n
	if err == nil && c.number%4 == 1 {
		err = c.conn.CloseWrite()
	}
	return err
}

// hear receives what the program has written.
func (c *client) hear() error {
	b := make([]byte, step)
	_ = c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if c.number%4 == 2 {
		if n, err := c.conn.Read(b); n != 0 || err != io.EOF {
			return fmt.Errorf("%d bytes and %v instead of the end of the stream", n, err)
		}
		return nil
	}
	if _, err := io.ReadFull(c.conn, b); err != nil {
		return err
	}
	for i := range b {
		if b[i] != streamByte(c.heard+i) {
			return fmt.Errorf("byte %d is wrong", c.heard+i)
		}
	}
	c.heard += step
	return nil
}

// clients waits for the program's connections.
func clients(t *testing.T, l4, l6 net.Listener) []*client {
	t.Helper()
	var out []*client
	for i := range 8 {
		l := l4
		if i >= 4 {
			l = l6
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		out = append(out, &client{conn: c.(*net.TCPConn), number: b[0]})
	}
	return out
}

// all calls fn for every client and names the one that fails.
func all(t *testing.T, list []*client, what string, fn func(*client) error) {
	t.Helper()
	for _, c := range list {
		if err := fn(c); err != nil {
			t.Fatalf("connection %d: %s: %v", c.number, what, err)
		}
	}
}

// TestConnectionsToTheOutsideAreKept: the other ends are the test's. What they
// send arrives before, while and after the container is moved, and of that they
// are told nothing.
func TestConnectionsToTheOutsideAreKept(t *testing.T) {
	keep := with(map[string]string{socket.OptionTCP: socket.TCPKeep})
	var listeners [2]net.Listener
	var ports []string
	for i, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		listeners[i] = l
		ports = append(ports, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	}
	kerneltest.NeedRoot(t)
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/outside.c", Args: ports})
	list := clients(t, listeners[0], listeners[1])
	for generation := range 5 {
		all(t, list, "write", (*client).write) // unread by the program
		if generation%2 == 0 {
			c.Verify()
			all(t, list, "write", (*client).write)
			// What the program wrote is not read by the clients yet.
		}
		if _, err := c.Export(true, keep...); err != nil { // and goes on
			t.Fatal(err)
		}
		image, err := c.Export(false, keep...)
		if err != nil {
			t.Fatal(err)
		}
		c.Stop()
		// The namespace is silent: what is sent now finds nobody and no reset.
		written := make(chan error, len(list))
		for _, k := range list {
			go func() { written <- k.write() }()
		}
		if c, err = c.Import(image, keep...); err != nil {
			t.Fatal(err)
		}
		for range list {
			if err := <-written; err != nil {
				t.Fatal(err)
			}
		}
		rounds := 2
		if generation%2 == 0 {
			rounds = 3
		}
		for range 2 {
			c.Verify()
		}
		for range rounds {
			all(t, list, "read", (*client).hear)
		}
	}
}
