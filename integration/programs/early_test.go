// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"slices"
	"testing"
)

// TestEarlyRounds: a large program that runs on is saved with early rounds, so that
// it is stopped for what it writes meanwhile only; one that ends is saved at once.
// What a stale page would be, the program knows.
func TestEarlyRounds(t *testing.T) {
	at := slices.IndexFunc(shared.list, func(p program) bool { return p.name == "storm_written" })
	if at < 0 {
		t.Fatal("there is no such program")
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	c := shared.run(ctx, t, shared.list[at], asRoot)
	image, last := shared.image(), shared.image()
	next := shared.checkpoint(ctx, t, c, image, true)
	if n := shared.rounds(t, c.ID); n == 0 {
		t.Error("no early round was made of a program that runs on")
	}
	shared.restore(ctx, t, next, image)
	after := shared.checkpoint(ctx, t, next, last, false)
	if n := shared.rounds(t, next.ID); n != 0 {
		t.Errorf("%d early rounds were made of a program that ends", n)
	}
	shared.ended(ctx, t, next)
	shared.restore(ctx, t, after, last)
	shared.good(ctx, t, after)
	shared.good(ctx, t, c)
}

// rounds are the early rounds of a container's last checkpoint.
func (h *harness) rounds(t *testing.T, container string) int {
	t.Helper()
	r, err := h.mig.LastRequest(container, "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	return r.Progress.Round
}
