// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

func pair(t *testing.T, n int) (*Writer, *Reader) {
	t.Helper()
	a, b := dial(t, n)
	w, err := NewWriter(Options{}, a...)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(Options{}, b...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close(); _ = r.Close() })
	return w, r
}

// TestCommandsBothWays: each side's subsystems talk to their peers, many at a
// time, while records flow.
func TestCommandsBothWays(t *testing.T) {
	w, r := pair(t, 2)
	for _, p := range []Peer{w, r} {
		p.Handle("memory", func(_ context.Context, c record.Command) (record.Command, error) {
			if c.Verb == "fail" {
				return record.Command{}, errors.New("no such page")
			}
			return record.Command{Body: append([]byte("re: "), c.Body...)}, nil
		})
	}
	go func() {
		for i := 0; ; i++ {
			if w.PushData(t.Context(), mediumtest.Record(i, 70_000)) != nil {
				return
			}
		}
	}()
	go func() {
		for {
			_, release, err := r.PopData(t.Context())
			if err != nil {
				return
			}
			release()
		}
	}()
	var work sync.WaitGroup
	for _, p := range []Peer{w, r} {
		for i := range 8 {
			work.Go(func() {
				for j := range 20 {
					body := fmt.Sprintf("%d.%d", i, j)
					got, err := p.Command(t.Context(), record.Command{To: "memory", Verb: "say", Body: []byte(body)})
					if err != nil || string(got.Body) != "re: "+body {
						t.Errorf("%q, %v", got.Body, err)
						return
					}
				}
			})
		}
	}
	work.Wait()
	for _, p := range []Peer{w, r} {
		var remote *RemoteError
		if _, err := p.Command(t.Context(), record.Command{To: "memory", Verb: "fail"}); !errors.As(err, &remote) || !strings.Contains(err.Error(), "no such page") {
			t.Errorf("fail: %v", err)
		}
		if _, err := p.Command(t.Context(), record.Command{To: "nobody"}); !errors.As(err, &remote) || !strings.Contains(err.Error(), "nobody here is called") {
			t.Errorf("nobody: %v", err)
		}
	}
}

// TestTellKeepsItsOrder: one-way commands arrive in order, and a call that waits
// ends when the peer goes.
func TestTellKeepsItsOrder(t *testing.T) {
	w, r := pair(t, 3)
	got := make(chan string, 100)
	r.Handle("control", func(_ context.Context, c record.Command) (record.Command, error) {
		got <- c.Verb
		return record.Command{}, nil
	})
	for i := range 100 {
		if err := w.Tell(t.Context(), record.Command{To: "control", Verb: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		if v := <-got; v != fmt.Sprint(i) {
			t.Fatalf("%s came where %d belongs", v, i)
		}
	}
	r.Handle("memory", func(ctx context.Context, _ record.Command) (record.Command, error) {
		<-ctx.Done() // never answers
		return record.Command{}, ctx.Err()
	})
	asked := make(chan error, 1)
	go func() {
		_, err := w.Command(t.Context(), record.Command{To: "memory"})
		asked <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.Command(ctx, record.Command{To: "memory"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("its time ran out: %v", err)
	}
	_ = r.Close()
	if err := <-asked; err == nil {
		t.Error("a peer that went away answered")
	}
	<-w.Over()
	if w.Err() == nil {
		t.Error("the stream is not known to be broken")
	}
}

// TestHostileCommands: what breaks the rules of commands breaks the stream.
func TestHostileCommands(t *testing.T) {
	hello := wire.Greeting{Count: 1, Purpose: wire.Data}.Append(nil)
	var flood []byte
	for i := range uint64(maxCalls + 1) {
		f, err := wire.AppendCommand(nil, i+1, record.Command{To: "slow"})
		if err != nil {
			t.Fatal(err)
		}
		flood = append(flood, f...)
	}
	bad, err := wire.AppendCommand(nil, 1, record.Command{To: "slow", Verb: "x"})
	if err != nil {
		t.Fatal(err)
	}
	bad[wire.HeaderSize+8] = 60
	for name, b := range map[string][]byte{
		"flood":           flood,
		"wrong names":     bad,
		"answer unasked":  wire.AppendAnswer(nil, 7, nil, nil),
		"pull on data":    wire.AppendPull(nil, 1, record.Pull{Subsystem: "memory"}),
		"half a command":  bad[:len(bad)-1],
		"huge and absent": wire.AppendHeader(nil, wire.Command, wire.CommandHead+wire.MaxBody),
	} {
		a, c := dial(t, 1)
		r, err := NewReader(Options{}, c...)
		if err != nil {
			t.Fatal(err)
		}
		r.Handle("slow", func(ctx context.Context, _ record.Command) (record.Command, error) {
			<-ctx.Done()
			return record.Command{}, ctx.Err()
		})
		go func() {
			_, _ = a[0].Write(append(hello[:len(hello):len(hello)], b...))
			_ = a[0].(*net.TCPConn).CloseWrite()
		}()
		select {
		case <-r.Over():
			if r.Err() == nil {
				t.Errorf("%s: no error", name)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s: the reader hangs", name)
		}
		_ = r.Close()
	}
}

// pullPair is an urgent connection whose Hello was read.
func pullPair(t *testing.T, p *Puller, token wire.Token, h PullHandler) (server net.Conn, done chan error) {
	t.Helper()
	a, b := dial(t, 1)
	done = make(chan error, 1)
	go func() { done <- ServePulls(t.Context(), token, a[0], h) }()
	if g, err := ReadGreeting(b[0]); err != nil || g.Purpose != wire.Urgent || g.Token != token {
		t.Fatalf("%+v, %v", g, err)
	}
	p.Attach(b[0])
	return a[0], done
}

// TestPulls: many at a time, failures are told, and a broken connection is
// replaced without losing one.
func TestPulls(t *testing.T) {
	token := wire.NewToken()
	p := NewPuller(token)
	release := make(chan struct{})
	handler := func(ctx context.Context, want record.Pull) (*record.Record, func(), error) {
		switch want.Entity {
		case 13:
			return nil, nil, errors.New("no such page")
		case 99: // answered by the second connection only
			select {
			case <-release:
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
		}
		r := &record.Record{Header: record.Header{Subsystem: want.Subsystem, Process: want.Process, Entity: want.Entity, Kind: 1},
			Payload: mediumtest.Payload(int(want.Entity), int(want.Length))}
		return r, nil, r.Seal()
	}
	pull := func(entity uint64, n uint32) error {
		r, release, err := p.Pull(t.Context(), record.Pull{Subsystem: "memory", Process: 2, Entity: entity, Length: n})
		if err != nil {
			return err
		}
		defer release()
		if r.Entity != entity || len(r.Payload) != int(n) {
			return fmt.Errorf("%s with %d bytes", r.Header, len(r.Payload))
		}
		return r.Verify()
	}
	// The first pull comes before any connection.
	early := make(chan error, 1)
	go func() { early <- pull(1, 4096) }()
	conn, done := pullPair(t, p, token, handler)
	if err := <-early; err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	for i := range 200 {
		work.Go(func() {
			if err := pull(uint64(1000+i), uint32(1+i*331)); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	var remote *RemoteError
	if err := pull(13, 1); !errors.As(err, &remote) {
		t.Errorf("a failure: %v", err)
	}
	late := make(chan error, 1)
	go func() { late <- pull(99, 65536) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := p.Pull(ctx, record.Pull{Subsystem: "memory", Entity: 99}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("its time ran out: %v", err)
	}
	conn.Close()
	<-done
	close(release)
	_, done = pullPair(t, p, token, handler)
	if err := <-late; err != nil {
		t.Errorf("after a broken connection: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the exporter's end: %v", err)
	}
	if err := pull(1, 1); err == nil {
		t.Error("a pull after Close was answered")
	}
}

// TestHostilePulled: a peer that answers with something else breaks the
// connection or the pull, never the caller.
func TestHostilePulled(t *testing.T) {
	token := wire.NewToken()
	p := NewPuller(token)
	defer p.Close()
	for _, b := range [][]byte{
		[]byte(strings.Repeat("x", 100)),
		wire.AppendHeader(nil, wire.Bye, 0),
		wire.AppendAnswer(nil, 1, []byte("a body"), nil),
		wire.AppendHeader(nil, wire.Pulled, wire.RecordHead+record.MaxPayload),
	} {
		a, c := dial(t, 1)
		p.Attach(c[0])
		_, _ = a[0].Write(b)
		_ = a[0].(*net.TCPConn).CloseWrite()
		for end := time.Now().Add(20 * time.Second); p.Attached(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("% x is taken", b[:min(len(b), 20)])
			}
		}
	}
	other := func(context.Context, record.Pull) (*record.Record, func(), error) {
		r := &record.Record{Header: record.Header{Subsystem: "cpu", Kind: 1}}
		return r, nil, r.Seal()
	}
	pullPair(t, p, token, other)
	if _, _, err := p.Pull(t.Context(), record.Pull{Subsystem: "memory"}); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("another subsystem's record: %v", err)
	}
}
