// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/layers/medium/pipe"
	"github.com/io-mig/mig/spec/record"
)

func plan(t *testing.T, s string) *Plan {
	t.Helper()
	p, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestErrorAtRecord(t *testing.T) {
	pw, _ := pipe.New(1 << 20)
	w := New(pw, Plans{Records: plan(t, "2*off->1*error(oops (1))")})
	for i := range 5 {
		err := w.PushData(t.Context(), mediumtest.Record(i, 10))
		if failed := errors.Is(err, ErrInjected); failed != (i == 2) || (err != nil) != failed {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

func TestCorrupt(t *testing.T) {
	pw, pr := pipe.New(1 << 20)
	w := New(pw, Plans{Records: plan(t, "1*off->2*corrupt")})
	for i, n := range []int{10, 10, 0, 10} {
		sent := mediumtest.Record(i, n)
		if err := w.PushData(t.Context(), sent); err != nil {
			t.Fatal(err)
		}
		got, release, err := pr.PopData(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var damage *record.ChecksumError
		if damaged := errors.As(got.Verify(), &damage); damaged != (i == 1 || i == 2) {
			t.Errorf("record %d: damaged %v", i, damaged)
		}
		release()
		if err := sent.Verify(); err != nil {
			t.Errorf("the caller's record was changed: %v", err)
		}
	}
}

func TestReader(t *testing.T) {
	pw, pr := pipe.New(1 << 20)
	r := New(pr, Plans{Records: plan(t, "1*delay(30ms)->1*corrupt->error(gone)")})
	for i := range 3 {
		if err := pw.PushData(t.Context(), mediumtest.Record(i, 10)); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	rec, release, err := r.PopData(t.Context())
	if err != nil || rec.Verify() != nil || time.Since(start) < 30*time.Millisecond {
		t.Errorf("the first: %v after %v, want whole and late", err, time.Since(start))
	}
	release()
	rec, release, err = r.PopData(t.Context())
	if err != nil || rec.Verify() == nil {
		t.Errorf("the second: %v, want damaged", err)
	}
	release()
	if _, _, err = r.PopData(t.Context()); !errors.Is(err, ErrInjected) || !strings.Contains(err.Error(), "gone") {
		t.Errorf("the third: %v, want the injected error", err)
	}
}

func TestFlush(t *testing.T) {
	pw, pr := pipe.New(1 << 20)
	defer pr.Close()
	w := New(pw, Plans{Flush: plan(t, "1*error(no)")})
	if _, err := w.Command(t.Context(), record.Command{Verb: medium.VerbManifest, Body: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(t.Context()); !errors.Is(err, ErrInjected) {
		t.Errorf("first flush: %v", err)
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Errorf("second flush: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", "->", "0*off", "x*off", "-1*off", "error", "error(x", "delay(x)", "delay(-1s)", "off(1)", "panic", "1*off->", "corrupt(1)"} {
		if _, err := Parse(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}
