// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// TestHostileExporter: whatever comes, the importer ends with an error that
// says so, and never with EOF.
func TestHostileExporter(t *testing.T) {
	hello := wire.Greeting{Count: 1, Purpose: wire.Data}.Append(nil)
	rec := mediumtest.Record(1, 100)
	frame := func(seq uint64) []byte { return append(wire.AppendRecord(nil, seq, rec), rec.Payload...) }
	flipped := frame(0)
	flipped[wire.HeaderSize+20] ^= 1
	var flood []byte
	big := mediumtest.Record(2, record.MaxPayload)
	for seq := range uint64(wire.Window/record.MaxPayload + 1) {
		flood = append(append(flood, wire.AppendRecord(nil, seq, big)...), big.Payload...)
	}
	for name, test := range map[string]struct {
		bytes    []byte
		protocol bool
	}{
		"nothing":             {nil, false},
		"not a mig":           {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), true},
		"no hello":            {frame(0), true},
		"another count":       {wire.Greeting{Index: 1, Count: 2, Purpose: wire.Data}.Append(nil), true},
		"hello twice":         {append(hello[:len(hello):len(hello)], hello...), true},
		"cut in a header":     {append(hello[:len(hello):len(hello)], frame(0)[:40]...), false},
		"cut in a payload":    {append(hello[:len(hello):len(hello)], frame(0)[:150]...), false},
		"no bye":              {append(hello[:len(hello):len(hello)], frame(0)...), false},
		"flipped header":      {append(hello[:len(hello):len(hello)], flipped...), true},
		"same record twice":   {append(append(hello[:len(hello):len(hello)], frame(3)...), frame(3)...), true},
		"more than window":    {append(hello[:len(hello):len(hello)], flood...), true},
		"credit":              {append(hello[:len(hello):len(hello)], wire.AppendNumber(nil, wire.Credit, 1)...), true},
		"gap before bye":      {append(append(hello[:len(hello):len(hello)], frame(1)...), wire.AppendHeader(nil, wire.Bye, 0)...), false},
		"failure is reported": {append(append(hello[:len(hello):len(hello)], wire.AppendHeader(nil, wire.Failure, 4)...), "oops"...), false},
	} {
		a, b := dial(t, 1)
		r, err := NewReader(Options{}, b...)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = a[0].Write(test.bytes)
			_ = a[0].(*net.TCPConn).CloseWrite()
		}()
		// Nothing is popped where more than the window is sent.
		if name == "more than window" {
			r.mu.Lock()
			for r.err == nil {
				changed := r.changed
				r.mu.Unlock()
				<-changed
				r.mu.Lock()
			}
			r.mu.Unlock()
		}
		for err = nil; err == nil; {
			var release func()
			if _, release, err = r.PopData(t.Context()); err == nil {
				release()
			}
		}
		if !errors.Is(err, medium.ErrIncomplete) || errors.Is(err, io.EOF) || errors.Is(err, wire.ErrProtocol) != test.protocol {
			t.Errorf("%s: %v", name, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestCutConnection: any of several connections that breaks ends both sides.
func TestCutConnection(t *testing.T) {
	for cut := range 3 {
		a, b := dial(t, 3)
		w, err := NewWriter(Options{}, a...)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewReader(Options{}, b...)
		if err != nil {
			t.Fatal(err)
		}
		popped := make(chan error, 1)
		go func() {
			for {
				_, release, err := r.PopData(t.Context())
				if err != nil {
					popped <- err
					return
				}
				release()
			}
		}()
		for i := 0; err == nil; i++ {
			if i == 50 {
				_ = a[cut].Close()
			}
			err = w.PushData(t.Context(), mediumtest.Record(i, 50_000))
		}
		if err := w.Flush(t.Context()); err == nil {
			t.Errorf("connection %d cut: flush succeeded", cut)
		}
		_ = w.Close()
		select {
		case err := <-popped:
			if !errors.Is(err, medium.ErrIncomplete) {
				t.Errorf("connection %d cut: the reader got %v, want ErrIncomplete", cut, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("connection %d cut: the reader hangs", cut)
		}
		_ = r.Close()
	}
}

// TestStalledPeer: a network that takes nothing does not hold a cancelled push.
func TestStalledPeer(t *testing.T) {
	a, b := dial(t, 1)
	w, err := NewWriter(Options{}, a...)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_ = b // nobody reads
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for i := 0; err == nil && i < 16; i++ {
		err = w.PushData(ctx, mediumtest.Record(i, 3<<20))
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want DeadlineExceeded", err)
	}
}

// BenchmarkLoopback moves 256 KiB records over TCP on the loopback.
func BenchmarkLoopback(b *testing.B) {
	for _, n := range []int{1, 2} {
		b.Run(map[int]string{1: "1conn", 2: "2conns"}[n], func(b *testing.B) {
			x, y := dial(b, n)
			w, err := NewWriter(Options{}, x...)
			if err != nil {
				b.Fatal(err)
			}
			r, err := NewReader(Options{}, y...)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			go func() {
				for {
					_, release, err := r.PopData(context.Background())
					if err != nil {
						return
					}
					release()
				}
			}()
			rec := mediumtest.Record(1, 256<<10)
			b.SetBytes(256 << 10)
			b.SetParallelism(1)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := w.PushData(context.Background(), rec); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
