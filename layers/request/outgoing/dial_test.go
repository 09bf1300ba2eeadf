// SPDX-License-Identifier: Apache-2.0

package outgoing

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/layers/request/identity/identitytest"
	"github.com/io-mig/mig/spec/wire"
)

// peer accepts one connection after the other and hands them to take.
func peer(t *testing.T, take func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			go func() { defer c.Close(); take(c) }()
		}
	}()
	return l.Addr().String()
}

func TestDial(t *testing.T) {
	ca := identitytest.New(t)
	there, _ := ca.Host("127.0.0.1")
	here, _ := ca.Host("here")
	config, err := identity.Server(there)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan wire.Preamble, 1)
	echo := func(secure bool) string {
		return peer(t, func(c net.Conn) {
			p, err := wire.ReadPreamble(c)
			if err != nil {
				t.Error(err)
				return
			}
			got <- p
			if secure {
				c = tls.Server(c, config)
			}
			_, _ = io.Copy(c, c)
		})
	}
	for _, m := range []address.Move{
		{Host: echo(true), Token: wire.NewToken(), TLS: here},
		{Host: echo(false), Token: wire.NewToken(), Insecure: true},
	} {
		conn, err := Dial(t.Context(), m, wire.Data)
		if err != nil {
			t.Fatal(err)
		}
		if p := <-got; p != (wire.Preamble{Purpose: wire.Data, Token: m.Token}) {
			t.Errorf("%+v", p)
		}
		b := make([]byte, 4)
		if _, err := conn.Write([]byte("ping")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != "ping" {
			t.Errorf("%q, %v", b, err)
		}
		conn.Close()
	}
	if _, err := Dial(t.Context(), address.Move{Host: "127.0.0.1:1"}, wire.Data); err == nil || !strings.Contains(err.Error(), "tls=DIRECTORY") {
		t.Errorf("neither TLS nor insecure: %v", err)
	}
	m := address.Move{Host: echo(true), TLS: here, Peer: "other.example"}
	if _, err := Dial(t.Context(), m, wire.Data); err == nil || !strings.Contains(err.Error(), "other.example") {
		t.Errorf("another host: %v", err)
	}
	<-got
	// A peer that says nothing holds nobody up longer than the context.
	m = address.Move{Host: peer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), TLS: here}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := Dial(ctx, m, wire.Data); err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("silence: %v after %s", err, time.Since(begun))
	}
}

// address of a connection that comes from elsewhere.
type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7117} }

func TestPlainTextStaysHere(t *testing.T) {
	if err := Loopback(elsewhere{}); err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("plain text with another host: %v", err)
	}
}
