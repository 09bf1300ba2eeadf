// SPDX-License-Identifier: Apache-2.0

package mediumtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

func testManifest(t *testing.T, target *Target) {
	transfer(t, target, pushAll(t.Context(), []*record.Record{Record(1, 100)}), func(r medium.Medium) error {
		answer, err := r.Command(t.Context(), record.Command{Verb: medium.VerbManifest})
		if err != nil {
			return err
		}
		got, err := image.UnmarshalManifest(answer.Body)
		if err != nil {
			return err
		}
		got.Files, got.Encryption = nil, "" // the medium's own
		if diff := cmp.Diff(Manifest(), got); diff != "" {
			return fmt.Errorf("manifest (-want +got):\n%s", diff)
		}
		_, err = readAll(t.Context(), r)
		if err != io.EOF {
			return err
		}
		return nil
	})
}

func testNoManifest(t *testing.T, target *Target) {
	w, err := target.Writer()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(t.Context()); !errors.Is(err, medium.ErrNoManifest) {
		t.Errorf("flush without a manifest: %v, want ErrNoManifest", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func testUnknownCommand(t *testing.T, target *Target) {
	w := begin(t, target)
	defer w.Close()
	if _, err := w.Command(t.Context(), record.Command{Verb: "no such verb"}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("writer: %v, want one that wraps errors.ErrUnsupported", err)
	}
}

func testDirection(t *testing.T, target *Target) {
	transfer(t, target, func(w medium.Medium) error {
		if _, _, err := w.PopData(t.Context()); !errors.Is(err, medium.ErrDirection) {
			return fmt.Errorf("pop on the writer: %w, want ErrDirection", err)
		}
		return nil
	}, func(r medium.Medium) error {
		if err := r.PushData(t.Context(), Record(1, 1)); !errors.Is(err, medium.ErrDirection) {
			return fmt.Errorf("push on the reader: %w, want ErrDirection", err)
		}
		return wantAll(t.Context(), nil)(r)
	})
}

// testCancelled: calls with an ended context do nothing and break nothing.
func testCancelled(t *testing.T, target *Target) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	list := []*record.Record{Record(1, 100), Record(2, 100_000)}
	transfer(t, target, func(w medium.Medium) error {
		for _, r := range list {
			if err := w.PushData(ended, r); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("push: %w, want Canceled", err)
			}
			if err := w.PushData(t.Context(), r); err != nil {
				return fmt.Errorf("push after a cancelled one: %w", err)
			}
		}
		return nil
	}, func(r medium.Medium) error {
		if _, _, err := r.PopData(ended); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("pop: %w, want Canceled", err)
		}
		return wantAll(t.Context(), list)(r)
	})
}

func testFlushTwice(t *testing.T, target *Target) {
	list := []*record.Record{Record(1, 100), Record(2, 100_000), Record(3, 7), Record(4, 200_000)}
	transfer(t, target, func(w medium.Medium) error {
		for i, r := range list {
			if err := w.PushData(t.Context(), r); err != nil {
				return err
			}
			if err := w.Flush(t.Context()); err != nil {
				return fmt.Errorf("flush %d: %w", i, err)
			}
		}
		return nil
	}, wantAll(t.Context(), list))
}

// incomplete closes the writer after write, without a last Flush: no reader
// may take what is there for a whole stream.
func incomplete(t *testing.T, target *Target, write func(w medium.Medium) error) {
	t.Helper()
	w := begin(t, target)
	r, done, err := start(target, func() error { return errors.Join(write(w), w.Close()) })
	if err != nil && target.Live {
		t.Fatalf("open the reader: %v", err)
	}
	if err == nil {
		_, err = readAll(t.Context(), r)
		_ = r.Close()
	}
	if err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the reader took an incomplete stream for a whole one (%v)", err)
	}
	if target.Live && !errors.Is(err, medium.ErrIncomplete) {
		t.Errorf("the reader got %v, want ErrIncomplete", err)
	}
	if err := <-done; err != nil {
		t.Errorf("writer: %v", err)
	}
	if target.Files != nil && len(target.Files()) > 0 {
		t.Errorf("left behind: %v", target.Files())
	}
}

func testCloseWithoutFlush(t *testing.T, target *Target) {
	incomplete(t, target, pushAll(t.Context(), []*record.Record{Record(1, 100), Record(2, 100_000)}))
}

func testPushAfterFlush(t *testing.T, target *Target) {
	incomplete(t, target, func(w medium.Medium) error {
		if err := w.PushData(t.Context(), Record(1, 100_000)); err != nil {
			return err
		}
		if err := w.Flush(t.Context()); err != nil {
			return err
		}
		return w.PushData(t.Context(), Record(2, 10))
	})
}

func testBlockedPop(t *testing.T, target *Target) {
	w := begin(t, target)
	r, err := target.Reader()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, _, err := r.PopData(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("pop: %v, want DeadlineExceeded", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the pop took %v to notice", d)
	}
	// Nothing is lost by it.
	want := Record(1, 5000)
	done := make(chan error, 1)
	go func() {
		done <- errors.Join(w.PushData(t.Context(), want), w.Flush(t.Context()), w.Close())
	}()
	if err := wantAll(t.Context(), []*record.Record{want})(r); err != nil {
		t.Error(err)
	}
	if err := errors.Join(<-done, r.Close()); err != nil {
		t.Error(err)
	}
}

// testBackPressure: a writer whose reader is slow waits, within the bound; the
// wait ends with the context, and goes on when the reader does.
func testBackPressure(t *testing.T, target *Target) {
	w := begin(t, target)
	r, err := target.Reader()
	if err != nil {
		t.Fatal(err)
	}
	const size = 100_000
	var list []*record.Record
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		rec := Record(len(list), size)
		err := w.PushData(ctx, rec)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if list = append(list, rec); len(list)*size > target.Bound {
			t.Fatalf("%d bytes were pushed and none popped; the bound is %d", len(list)*size, target.Bound)
		}
	}
	if len(list) == 0 {
		t.Fatal("not one record fits")
	}
	done := make(chan error, 1)
	last := Record(len(list), size)
	list = append(list, last)
	go func() { done <- errors.Join(w.PushData(t.Context(), last), w.Flush(t.Context()), w.Close()) }()
	if err := wantAll(t.Context(), list)(r); err != nil {
		t.Error(err)
	}
	if err := errors.Join(<-done, r.Close()); err != nil {
		t.Error(err)
	}
}

// testReaderGone: pushes and flushes end with an error when the reader closes.
func testReaderGone(t *testing.T, target *Target) {
	w := begin(t, target)
	r, err := target.Reader()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i := 0; ; i++ {
		if err = w.PushData(ctx, Record(i, 100_000)); err != nil || i*100_000 > 2*target.Bound {
			break
		}
	}
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("pushes to a reader that is gone: %v", err)
	}
	if err := w.Flush(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("flush to a reader that is gone: %v", err)
	}
	_ = w.Close()
}
