// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/layers/request/identity/identitytest"
	"github.com/io-mig/mig/spec/wire"
)

// hosts are two hosts' identities.
type hosts struct{ server, client *tls.Config }

func newHosts(t testing.TB) hosts {
	t.Helper()
	a := identitytest.New(t)
	there, _ := a.Host("there.example")
	here, _ := a.Host("here.example")
	server, err := identity.Server(there)
	if err != nil {
		t.Fatal(err)
	}
	client, err := identity.Client(here, "there.example")
	if err != nil {
		t.Fatal(err)
	}
	return hosts{server, client}
}

// gatherer takes n connections over TLS; dial makes them.
func (h hosts) gatherer(token wire.Token) *Gatherer {
	return &Gatherer{Token: token, Secure: func(ctx context.Context, c net.Conn) (net.Conn, error) {
		s := tls.Server(c, h.server)
		return s, s.HandshakeContext(ctx)
	}}
}

// TestSuiteTLS: the suite over several connections with TLS, gathered among
// strangers, with each policy of compression.
func TestSuiteTLS(t *testing.T) {
	h := newHosts(t)
	for _, n := range []int{1, 3} {
		for _, c := range []Compression{CompressNever, CompressAlways} {
			t.Run(fmt.Sprintf("%d/%d", n, c), func(t *testing.T) {
				mediumtest.Run(t, func(t *testing.T) *mediumtest.Target {
					token := wire.NewToken()
					a, b := dial(t, n+1)
					g := h.gatherer(token)
					var secured []net.Conn
					for i := range n {
						secured = append(secured, tls.Client(a[i], h.client))
					}
					go func() { _, _ = a[n].Write([]byte("GET / HTTP/1.1\r\n\r\n")) }()
					for _, conn := range b {
						g.Add(t.Context(), conn)
					}
					return &mediumtest.Target{
						Writer: func() (medium.Medium, error) { return NewWriter(Options{Token: token, Compress: c}, secured...) },
						Reader: func() (medium.Medium, error) { return g.Stream(t.Context()) },
						Live:   true, Bound: wire.Window,
					}
				})
			})
		}
	}
}

// TestGatherer: garbage, silence, strangers, replays and peers of other moves
// do not end a move, and are named.
func TestGatherer(t *testing.T) {
	h, foreign := newHosts(t), newHosts(t)
	token := wire.NewToken()
	var mu sync.Mutex
	var warned []string
	g := h.gatherer(token)
	g.Timeout = 500 * time.Millisecond
	g.Warn = func(err error) { mu.Lock(); warned = append(warned, err.Error()); mu.Unlock() }
	hello := func(index, count int, purpose wire.Purpose, token wire.Token) []byte {
		return wire.Greeting{Index: index, Count: count, Purpose: purpose, Token: token}.Append(nil)
	}
	version := hello(0, 2, wire.Data, token)
	version[wire.HeaderSize+4] = 9
	real := func(conn net.Conn) net.Conn { return tls.Client(conn, h.client) }
	good := hello(0, 2, wire.Data, token)
	for i, test := range []struct {
		name  string
		conn  func(net.Conn) net.Conn
		bytes []byte
		want  string // of the warning; empty: accepted
	}{
		{"first", real, good, ""},
		{"garbage", func(c net.Conn) net.Conn { return c }, []byte(strings.Repeat("x", 4000)), "tls"},
		{"silence", func(c net.Conn) net.Conn { return c }, nil, "deadline"},
		{"plain text", func(c net.Conn) net.Conn { return c }, good, "tls"},
		{"a stranger with a certificate", func(c net.Conn) net.Conn {
			other := foreign.client.Clone()
			other.InsecureSkipVerify = true
			return tls.Client(c, other)
		}, good, "certificate"},
		{"no hello", real, wire.AppendHeader(nil, wire.Bye, 0), "where a hello belongs"},
		{"another move", real, hello(1, 2, wire.Data, wire.NewToken()), "it says that it belongs to move"},
		{"replayed", real, good, "came twice"},
		{"another count", real, hello(1, 3, wire.Data, token), "the stream has 2"},
		{"another version", real, version, "speaks version 9"},
		{"urgent", real, hello(0, 1, wire.Urgent, token), "nobody here takes urgent"},
		{"second", real, hello(1, 2, wire.Data, token), ""},
		{"too late", real, hello(1, 2, wire.Data, token), "connection 1 of 2"},
	} {
		a, b := dial(t, 1)
		conn := test.conn(a[0])
		go func() { _, _ = conn.Write(test.bytes) }()
		mu.Lock()
		before := len(warned)
		mu.Unlock()
		g.Add(t.Context(), b[0])
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			g.mu.Lock()
			pending := g.pending
			g.mu.Unlock()
			mu.Lock()
			now := append([]string(nil), warned[before:]...)
			mu.Unlock()
			if pending == 0 && (test.want == "") == (len(now) == 0) {
				if test.want != "" && !strings.Contains(now[0], test.want) {
					t.Errorf("%d %s: %q", i, test.name, now)
				}
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%d %s: %d pending, warned %q", i, test.name, pending, now)
			}
		}
	}
	r, err := g.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := h.gatherer(token).Stream(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody came: %v", err)
	}
}

// TestGathererIsCut: whoever brings the connections is gone. What is being secured
// may still complete the stream; otherwise who waits is told at once.
func TestGathererIsCut(t *testing.T) {
	h := newHosts(t)
	gone := errors.New("gone")
	for _, come := range []int{0, 1, 2} {
		token := wire.NewToken()
		g := h.gatherer(token)
		a, b := dial(t, 2)
		for i := range come {
			g.Add(t.Context(), b[i])
		}
		g.Cut(gone)
		for i := range come {
			conn := tls.Client(a[i], h.client)
			go func() {
				_, _ = conn.Write(wire.Greeting{Index: i, Count: 2, Purpose: wire.Data, Token: token}.Append(nil))
			}()
		}
		r, err := g.Stream(t.Context())
		if come < 2 {
			if !errors.Is(err, gone) {
				t.Errorf("with %d of 2: %v, want %v", come, err, gone)
			}
			continue
		}
		if err != nil {
			t.Fatalf("with all: %v", err)
		}
		g.Cut(gone) // nothing waits any more
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
