// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// stormCheckpoints is how many checkpoints each storm goes through;
// MIG_STORM_CHECKPOINTS overrules it, `make soak` takes 200.
const stormCheckpoints = 20

// TestStorms makes many checkpoints of programs that change their state all the
// time: none may fail, hang or harm the program.
func TestStorms(t *testing.T) {
	n := stormCheckpoints
	if text := os.Getenv("MIG_STORM_CHECKPOINTS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range shared.list {
		if !strings.HasPrefix(p.name, "storm_") {
			continue
		}
		for _, u := range []user{asRoot, asUser} {
			if p.fits(u) {
				t.Run(p.name+"/"+u.name, func(t *testing.T) { shared.storm(t, p, u, n) })
			}
		}
	}
}

// storm makes n checkpoints of one program, as u's are saved.
func (h *harness) storm(t *testing.T, p program, u user, n int) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout+time.Duration(n)*5*time.Second)
	defer cancel()
	c := h.run(ctx, t, p, u)
	for i := range n {
		image := h.image()
		if _, err := h.mig.Checkpoint(ctx, c, image, true); err != nil {
			t.Fatalf("checkpoint %d of %d: %v; the program says: %s", i+1, n, err, says(t, c))
		}
		if err := os.RemoveAll(image); err != nil {
			t.Fatal(err)
		}
	}
	h.good(ctx, t, c)
}
