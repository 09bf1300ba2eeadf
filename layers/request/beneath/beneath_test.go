// SPDX-License-Identifier: Apache-2.0

package beneath

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"

	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/layers/request/identity/identitytest"
)

// counted counts the writes of a connection.
type counted struct {
	net.Conn
	writes atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestTLS: what goes through TLS over such connections arrives, corked or not, in
// reads of any size, and a corked megabyte is few writes.
func TestTLS(t *testing.T) {
	ca := identitytest.New(t)
	there, _ := ca.Host("there.example")
	here, _ := ca.Host("here.example")
	server, err := identity.Server(there)
	if err != nil {
		t.Fatal(err)
	}
	client, err := identity.Client(here, "there.example")
	if err != nil {
		t.Fatal(err)
	}
	a, b := pair(t)
	count := &counted{Conn: a}
	below := New(count)
	out, in := tls.Client(below, client), tls.Server(New(b), server)
	done := make(chan error, 1)
	go func() { done <- in.HandshakeContext(context.Background()) }()
	if err := out.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	go func() {
		_, err := out.Write(data[:100]) // goes out at once
		below.Cork()
		for at := 100; at < len(data) && err == nil; at += 50_000 {
			_, err = out.Write(data[at:min(len(data), at+50_000)])
		}
		if err == nil {
			err = below.Uncork()
		}
		done <- err
	}()
	got := make([]byte, len(data))
	for at := 0; at < len(got); {
		n, err := in.Read(got[at:min(len(got), at+1+rand.IntN(200_000))])
		if err != nil {
			t.Fatal(err)
		}
		at += n
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Error("what came is not what was sent")
	}
	// The handshake's, the first, and 128 KiB each.
	if n := count.writes.Load(); n > 16 {
		t.Errorf("%d writes for a megabyte", n)
	}
}

// TestEnd: the end of the connection comes behind all that was sent.
func TestEnd(t *testing.T) {
	a, b := pair(t)
	out, in := New(a), New(b)
	out.Cork()
	if _, err := out.Write(make([]byte, 300_000)); err != nil {
		t.Fatal(err)
	}
	if err := out.Uncork(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(in)
	if err != nil || len(got) != 300_000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := out.Write([]byte("x")); err == nil {
		t.Error("a write to a closed connection went unnoticed")
	}
}
