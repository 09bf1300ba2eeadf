// SPDX-License-Identifier: Apache-2.0

package incoming

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/io-mig/mig/spec/wire"
)

// serve runs an acceptor on the loopback and fails if it leaves a goroutine.
func serve(t *testing.T, o Options) (*Acceptor, string) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				buf := make([]byte, 64<<10)
				t.Errorf("goroutines: %d before, %d after\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
				return
			}
		}
	})
	o.Dir = filepath.Join(t.TempDir(), "incoming")
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- a.Serve(l) }()
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return a, l.Addr().String()
}

func dial(t *testing.T, addr string, b []byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	return c
}

// ended waits for the acceptor to close c.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection was not ended: %v", err)
	}
}

func TestControlIsHandled(t *testing.T) {
	got := make(chan wire.Preamble, 2)
	_, addr := serve(t, Options{Handle: func(_ context.Context, c net.Conn, p wire.Preamble) {
		got <- p
		_, _ = io.Copy(c, c)
	}})
	for _, purpose := range []wire.Purpose{wire.Control, wire.Resolve} {
		p := wire.Preamble{Purpose: purpose, Token: wire.NewToken()}
		c := dial(t, addr, append(p.Append(nil), "tls"...))
		if g := <-got; g != p {
			t.Errorf("handled %+v, want %+v", g, p)
		}
		// Nothing behind the preamble was read.
		b := make([]byte, 3)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "tls" {
			t.Errorf("%q, %v", b, err)
		}
		c.Close()
	}
}

func TestDescriptorsReachTheEngine(t *testing.T) {
	a, addr := serve(t, Options{})
	token := wire.NewToken()
	path, forget, err := a.Expect(token)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Expect(token); !errors.Is(err, ErrExpected) {
		t.Errorf("expected twice: %v", err)
	}
	st, err := os.Stat(filepath.Dir(path))
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", st.Mode(), err)
	}
	// One comes before the engine, one after it, of either purpose.
	first := dial(t, addr, append(wire.Preamble{Purpose: wire.Data, Token: token}.Append(nil), "one"...))
	w, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(peer net.Conn, purpose wire.Purpose, text string) {
		t.Helper()
		c, p, err := w.Accept(t.Context())
		if err != nil || p.Purpose != purpose || p.Token != token {
			t.Fatalf("%+v, %v", p, err)
		}
		defer c.Close()
		b := make([]byte, 3)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		b = make([]byte, 5)
		if _, err := io.ReadFull(peer, b); err != nil || string(b) != "hello" {
			t.Errorf("%q, %v", b, err)
		}
	}
	check(first, wire.Data, "one")
	second := dial(t, addr, append(wire.Preamble{Purpose: wire.Urgent, Token: token}.Append(nil), "two"...))
	check(second, wire.Urgent, "two")

	// A new engine takes the place of the old one.
	old := w
	if w, err = Dial(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := old.Accept(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("the old engine: %v", err)
	}
	old.Close()
	third := dial(t, addr, append(wire.Preamble{Purpose: wire.Data, Token: token}.Append(nil), "3rd"...))
	check(third, wire.Data, "3rd")

	// The end of a context ends the waiting.
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, _, err := w.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	w.Close()

	late := dial(t, addr, wire.Preamble{Purpose: wire.Data, Token: token}.Append(nil))
	forget()
	forget()
	ended(t, late)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	ended(t, dial(t, addr, wire.Preamble{Purpose: wire.Data, Token: token}.Append(nil)))
}

// TestStrangers: garbage, silence, unknown tokens and floods are turned away,
// and a real connection passes among them.
func TestStrangers(t *testing.T) {
	var mu sync.Mutex
	var warned []string
	a, addr := serve(t, Options{
		PreambleTimeout: 300 * time.Millisecond, FetchTimeout: 300 * time.Millisecond, MaxUnknown: 4, MaxQueued: 2, MaxExpected: 1,
		Warn: func(err error) { mu.Lock(); warned = append(warned, err.Error()); mu.Unlock() },
	})
	token := wire.NewToken()
	path, forget, err := a.Expect(token)
	if err != nil {
		t.Fatal(err)
	}
	defer forget()
	if _, _, err := a.Expect(wire.NewToken()); !errors.Is(err, ErrTooMany) {
		t.Errorf("one token more: %v", err)
	}
	good := wire.Preamble{Purpose: wire.Data, Token: token}.Append(nil)
	flipped := append([]byte(nil), good...)
	flipped[9] ^= 1
	other := wire.Preamble{Purpose: wire.Data, Token: wire.NewToken()}.Append(nil)
	for _, b := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"), make([]byte, 4096), flipped, other, nil, good[:31],
	} {
		ended(t, dial(t, addr, b))
	}
	// No Handle: a control connection is closed, too.
	ended(t, dial(t, addr, wire.Preamble{Purpose: wire.Control}.Append(nil)))
	// Silent ones do not keep a real one out.
	for range 20 {
		dial(t, addr, nil)
	}
	real := dial(t, addr, append(good[:32:32], "yes"...))
	w, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := w.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 3)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "yes" {
		t.Errorf("%q, %v", b, err)
	}
	c.Close()
	real.Close()
	w.Close()
	// Nobody fetches: neither more than the limit nor for ever.
	for range 4 {
		ended(t, dial(t, addr, good))
	}
	mu.Lock()
	defer mu.Unlock()
	if all := strings.Join(warned, "\n"); !strings.Contains(all, "nobody expects") || !strings.Contains(all, "is the peer a mig?") || !strings.Contains(all, "no engine took") {
		t.Errorf("the warnings do not say what happened:\n%s", all)
	}
}

// TestClose waits for a Handle, and ends silent connections.
func TestClose(t *testing.T) {
	in := make(chan struct{})
	a, addr := serve(t, Options{Handle: func(ctx context.Context, _ net.Conn, _ wire.Preamble) {
		close(in)
		<-ctx.Done()
	}})
	if _, _, err := a.Expect(wire.NewToken()); err != nil {
		t.Fatal(err)
	}
	silent := dial(t, addr, nil)
	dial(t, addr, wire.Preamble{Purpose: wire.Control}.Append(nil))
	<-in
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	ended(t, silent)
	if _, _, err := a.Expect(wire.NewToken()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestStaleSockets: those of an acceptor that was killed are removed, and
// nothing else.
func TestStaleSockets(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, wire.NewToken().String()+socketSuffix)
	foreign := filepath.Join(dir, "other.sock")
	for _, f := range []string{stale, foreign} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, err := New(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := os.Lstat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stale: %v", err)
	}
	if _, err := os.Lstat(foreign); err != nil {
		t.Error(err)
	}
}
