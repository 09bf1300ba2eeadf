// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/layers/medium/pipe"
)

func TestRate(t *testing.T) {
	pw, _ := pipe.New(10 << 20)
	w, err := New(pw, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := range 4 {
		if err := w.PushData(t.Context(), mediumtest.Record(i, 100<<10)); err != nil {
			t.Fatal(err)
		}
	}
	// The first passes at once, the fourth after three times 100 ms.
	if d := time.Since(start); d < 290*time.Millisecond || d > 3*time.Second {
		t.Errorf("400 KiB at 1 MiB/s took %v, want about 300 ms until the last is taken", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := w.PushData(ctx, mediumtest.Record(9, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait past the deadline: %v", err)
	}
	if _, err := New(pw, 0); err == nil {
		t.Error("a limit of 0 was accepted")
	}
}
