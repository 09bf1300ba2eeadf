// SPDX-License-Identifier: Apache-2.0

package resolve_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request/address"
	"github.com/io-mig/mig/layers/request/identity"
	"github.com/io-mig/mig/layers/request/identity/identitytest"
	"github.com/io-mig/mig/layers/request/incoming"
	"github.com/io-mig/mig/layers/request/journal"
	"github.com/io-mig/mig/layers/request/resolve"
	"github.com/io-mig/mig/layers/request/resolve/question"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// daemon is as much of migd as this needs.
func daemon(t *testing.T, dir, identityDir string) (addr string, errs chan error) {
	t.Helper()
	config, err := identity.Server(identityDir)
	if err != nil {
		t.Fatal(err)
	}
	errs = make(chan error, 100)
	a, err := incoming.New(incoming.Options{Dir: t.TempDir(), Handle: func(ctx context.Context, conn net.Conn, p wire.Preamble) {
		c := tls.Server(conn, config)
		err := c.HandshakeContext(ctx)
		if err == nil {
			err = resolve.Serve(ctx, c, p.Token, dir)
		}
		errs <- err
	}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = a.Serve(l) }()
	t.Cleanup(func() { a.Close() })
	return l.Addr().String(), errs
}

func TestAsk(t *testing.T) {
	ca := identitytest.New(t)
	there, _ := ca.Host("127.0.0.1")
	here, _ := ca.Host("here")
	dir := t.TempDir()
	addr, errs := daemon(t, dir, there)
	m := address.Move{Host: addr, TLS: here, Token: wire.NewToken()}
	if _, err := question.Ask(t.Context(), m); !errors.Is(err, journal.ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
	<-errs
	self, err := journal.ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		entry handover.Entry
		want  handover.Message
	}{
		{handover.EntryNone, handover.Ready}, {handover.EntryCommitted, handover.Ready}, {handover.EntryRunning, handover.Running},
		{handover.EntryAborted, handover.Aborted}, {handover.EntryLost, handover.Lost},
	} {
		if err := journal.Write(dir, journal.State{Token: m.Token, Side: journal.Destination, Entry: test.entry, Engine: self}); err != nil {
			t.Fatal(err)
		}
		if got, err := question.Ask(t.Context(), m); err != nil || got != test.want {
			t.Errorf("%q: %s, %v", test.entry, got, err)
		}
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for _, left := range []bool{true, false} {
		if err := journal.Write(dir, journal.State{Token: m.Token, Side: journal.Destination, Entry: handover.EntryRunning, Engine: self, Left: left}); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := question.Main(strings.NewReader(m.String()), &out); err != nil {
			t.Error(err)
		}
		if got, whole, err := resolve.Understand(out.String()); err != nil || got != handover.Running || whole == left {
			t.Errorf("a process is told %q: %s, whole %t, %v", out.String(), got, whole, err)
		}
		if got, whole, err := question.AskWhole(t.Context(), m); err != nil || got != handover.Running || whole == left {
			t.Errorf("left %v: %s, whole %v, %v", left, got, whole, err)
		}
		<-errs
	}
	if err := os.WriteFile(journal.Path(dir, m.Token, journal.Destination), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := question.Ask(t.Context(), m); err == nil || !strings.Contains(err.Error(), "cannot tell") {
		t.Errorf("a damaged journal: %v", err)
	}
	stranger, _ := identitytest.New(t).Host("here")
	m.TLS = stranger
	if _, err := question.Ask(t.Context(), m); err == nil {
		t.Error("a stranger was answered")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := question.Ask(ctx, address.Move{Host: "127.0.0.1:1", Insecure: true}); err == nil {
		t.Error("nobody has answered")
	}
}

// TestHostileSources: Serve ends with an error whatever comes.
func TestHostileSources(t *testing.T) {
	token := wire.NewToken()
	hello := wire.Greeting{Count: 1, Purpose: wire.Resolve, Token: token}.Append(nil)
	asked := func(c record.Command, number uint64) []byte {
		b, err := wire.AppendCommand(nil, number, c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":      nil,
		"garbage":      []byte("GET / HTTP/1.1\r\n\r\n"),
		"data hello":   wire.Greeting{Count: 1, Purpose: wire.Data, Token: token}.Append(nil),
		"other token":  wire.Greeting{Count: 1, Purpose: wire.Resolve, Token: wire.NewToken()}.Append(nil),
		"hello only":   hello,
		"a record":     append(hello[:len(hello):len(hello)], wire.AppendHeader(nil, wire.Record, wire.RecordHead)...),
		"another verb": append(hello[:len(hello):len(hello)], asked(record.Command{To: "control", Verb: "ABORT"}, 1)...),
		"long":         append(hello[:len(hello):len(hello)], asked(record.Command{To: "control", Verb: "COMMIT", Body: make([]byte, 9<<10)}, 1)...),
		"no number":    append(hello[:len(hello):len(hello)], asked(record.Command{To: "control", Verb: "COMMIT"}, 0)...),
		"half":         append(hello[:len(hello):len(hello)], asked(record.Command{To: "control", Verb: "COMMIT"}, 1)[:20]...),
	} {
		a, c := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- resolve.Serve(t.Context(), c, token, t.TempDir()); c.Close() }()
		go func() { _, _ = io.Copy(io.Discard, a) }()
		_, _ = a.Write(b)
		a.Close()
		if err := <-done; err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// Silence ends with the daemon.
	a, c := net.Pipe()
	defer a.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := resolve.Serve(ctx, c, token, t.TempDir()); err == nil {
		t.Error("silence: no error")
	}
}
