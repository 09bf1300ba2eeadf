// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/layers/medium/pipe"
)

func TestCounts(t *testing.T) {
	now := time.Unix(1000, 0)
	pw, pr := pipe.New(1 << 20)
	clock := func() time.Time { return now }
	w, r := newMeter(pw, clock), newMeter(pr, clock)
	for i, n := range []int{100, 0, 4096} {
		now = now.Add(400 * time.Millisecond)
		rec := mediumtest.Record(i, n)
		if i == 1 {
			rec.Subsystem = "cpu"
		}
		if err := w.PushData(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.PushData(ended, mediumtest.Record(9, 9)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s := w.Stats()
	if s.Count != (Count{3, 4196}) || s.Subsystems["memory"] != (Count{2, 4196}) || s.Subsystems["cpu"] != (Count{1, 0}) || len(s.Subsystems) != 2 {
		t.Errorf("writer: %+v", s)
	}
	// The third record closed the first window of 1.2 s, with 100 bytes.
	if want := 100 / 1.2; s.Elapsed != 1200*time.Millisecond || s.Rate < want-0.1 || s.Rate > want+0.1 {
		t.Errorf("elapsed %v, rate %v, want 1.2s and %v", s.Elapsed, s.Rate, want)
	}
	now = now.Add(10 * time.Second)
	if s := w.Stats(); s.Rate < 409 || s.Rate > 410 {
		t.Errorf("after 10 s of silence: rate %v, want 4096 bytes over 10 s", s.Rate)
	}
	_, release, err := r.PopData(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
	if s := r.Stats(); s.Count != (Count{1, 100}) {
		t.Errorf("reader: %+v", s)
	}
}
