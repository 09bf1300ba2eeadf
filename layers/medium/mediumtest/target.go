// SPDX-License-Identifier: Apache-2.0

// Package mediumtest is the one suite that every medium and every wrapper
// passes: the contract of medium.Medium as a program.
package mediumtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

// Target is a medium as the suite sees it: one stream, with its two ends.
type Target struct {
	// Writer opens the end that is pushed to.
	Writer func() (medium.Medium, error)
	// Reader opens the other end of the same stream: of a live medium while
	// the writer is open, of a stored one after it was closed.
	Reader func() (medium.Medium, error)
	// Live: both ends are open at the same time and nothing is stored.
	Live bool
	// Bound is what a live medium buffers at most, in bytes of payload.
	Bound int
	// Files of a stored medium, for damage. nil: damage is not tried.
	Files func() []string
}

// Run runs the suite. New is asked for a fresh target for every test.
func Run(t *testing.T, newTarget func(t *testing.T) *Target) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *Target)
	}{
		{"order", testOrder},
		{"sizes", testSizes},
		{"empty", testEmpty},
		{"reuse", testReuse},
		{"release", testRelease},
		{"concurrent", testConcurrent},
		{"concurrent order", testConcurrentOrder},
		{"manifest", testManifest},
		{"no manifest", testNoManifest},
		{"unknown command", testUnknownCommand},
		{"direction", testDirection},
		{"cancelled", testCancelled},
		{"flush twice", testFlushTwice},
		{"close without flush", testCloseWithoutFlush},
		{"push after flush", testPushAfterFlush},
		{"blocked pop is cancelled", live(testBlockedPop)},
		{"back-pressure", live(testBackPressure)},
		{"reader goes away", live(testReaderGone)},
		{"truncation", stored(testTruncation)},
		{"corruption", stored(testCorruption)},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			test.run(t, newTarget(t))
			noLeak(t, before)
		})
	}
}

func live(f func(*testing.T, *Target)) func(*testing.T, *Target) {
	return func(t *testing.T, target *Target) {
		if !target.Live {
			t.Skip("a stored medium")
		}
		f(t, target)
	}
}

func stored(f func(*testing.T, *Target)) func(*testing.T, *Target) {
	return func(t *testing.T, target *Target) {
		if target.Live || target.Files == nil {
			t.Skip("nothing is stored")
		}
		f(t, target)
	}
}

// noLeak fails if the test leaves goroutines behind.
func noLeak(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 64<<10)
			t.Fatalf("goroutines: %d before, %d after\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
	}
}

// Manifest is the one that the suite's streams carry.
func Manifest() *image.Manifest {
	return &image.Manifest{
		Tool: "mig test", Created: "2026-01-02T03:04:05Z", Architecture: "amd64", Kernel: "6.18.0", Container: "web",
		PageSize: 4096, CPUFeatures: []string{"avx2", "sse4_2"},
		Subsystems: []image.Subsystem{{Name: "memory", Version: 1}, {Name: "cpu", Version: 3}},
	}
}

// Payload is n bytes that depend on seed.
func Payload(seed, n int) []byte {
	b := make([]byte, n)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// Record is a sealed record of n bytes; seed makes header and payload.
func Record(seed, n int) *record.Record {
	r := &record.Record{
		Header:  record.Header{Subsystem: "memory", Process: record.ProcessID(seed % 3), Entity: uint64(seed) << 12, Kind: uint32(seed%5) + 1},
		Payload: Payload(seed, n),
	}
	if err := r.Seal(); err != nil {
		panic(err)
	}
	return r
}

// begin opens the writer and gives it the manifest.
func begin(t *testing.T, target *Target) medium.Medium {
	t.Helper()
	w, err := target.Writer()
	if err != nil {
		t.Fatalf("open the writer: %v", err)
	}
	body, err := Manifest().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Command(t.Context(), record.Command{Verb: medium.VerbManifest, Body: body}); err != nil {
		t.Fatalf("manifest: %v", err)
	}
	return w
}

// transfer runs write against the writer, flushes and closes it, and hands the
// reader to read: one after the other, or at the same time for a live medium.
func transfer(t *testing.T, target *Target, write func(w medium.Medium) error, read func(r medium.Medium) error) {
	t.Helper()
	w := begin(t, target)
	finish := func() error {
		return errors.Join(write(w), w.Flush(context.WithoutCancel(t.Context())), w.Close())
	}
	r, done, err := start(target, finish)
	if err != nil {
		t.Fatalf("open the reader: %v", err)
	}
	if err := read(r); err != nil {
		t.Errorf("read: %v", err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("write: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the writer hangs")
	}
	if err := r.Close(); err != nil {
		t.Errorf("close the reader: %v", err)
	}
}

// start runs write and opens the reader: afterwards, or before for a live
// medium, whose reader must be there before the writer can be gone again. What
// write says arrives in done, unless a live reader did not open.
func start(target *Target, write func() error) (r medium.Medium, done chan error, err error) {
	done = make(chan error, 1)
	if !target.Live {
		done <- write()
		r, err = target.Reader()
		return r, done, err
	}
	if r, err = target.Reader(); err == nil {
		go func() { done <- write() }()
	}
	return r, done, err
}

func pushAll(ctx context.Context, list []*record.Record) func(medium.Medium) error {
	return func(w medium.Medium) error {
		for i, r := range list {
			if err := w.PushData(ctx, r); err != nil {
				return fmt.Errorf("push %d: %w", i, err)
			}
		}
		return nil
	}
}

// readAll pops to the end; every record must verify. The copies are the caller's.
func readAll(ctx context.Context, r medium.Medium) (list []*record.Record, err error) {
	for {
		rec, release, err := r.PopData(ctx)
		if err != nil {
			return list, err
		}
		c := *rec
		c.Payload = bytes.Clone(rec.Payload)
		release()
		list = append(list, &c)
		if err := c.Verify(); err != nil {
			return list, err
		}
	}
}

// wantAll reads everything and compares.
func wantAll(ctx context.Context, want []*record.Record) func(medium.Medium) error {
	return func(r medium.Medium) error {
		got, err := readAll(ctx, r)
		if err != io.EOF {
			return fmt.Errorf("after %d records: %w, want EOF", len(got), err)
		}
		if _, _, err := r.PopData(ctx); err != io.EOF {
			return fmt.Errorf("pop after EOF: %w, want EOF again", err)
		}
		return equal(got, want)
	}
}

func equal(got, want []*record.Record) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].Header != want[i].Header || got[i].Sum != want[i].Sum || !bytes.Equal(got[i].Payload, want[i].Payload) {
			return fmt.Errorf("record %d is %s with %d bytes, want %s with %d", i, got[i].Header, len(got[i].Payload), want[i].Header, len(want[i].Payload))
		}
	}
	return nil
}
