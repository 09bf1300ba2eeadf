// SPDX-License-Identifier: Apache-2.0

package live

import (
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// TestLodgersMove: a program moves, begins to have its memory in common with other
// processes, which write to it all the time, and moves with them back and forth, by
// every way to carry memory.
func TestLodgersMove(t *testing.T) {
	i := witness(t, "lodgers")
	w := newWorld(t, daemon.V24, i)
	w.runPod(i, "lodgers", "/lodgers")
	c := w.questions()
	w.good(c, "verify")
	w.mustMove(w.alpha, "lodgers", w.beta.IP)
	w.good(c, "lodge")
	from, to := w.beta, w.alpha
	for _, strategy := range []string{"pre-copy", "post-copy", "hybrid", "stop-and-copy"} {
		w.mustMove(from, "--strategy", strategy, "lodgers", to.IP)
		w.good(c, "verify")
		w.one("lodgers", to, from)
		from, to = to, from
	}
}
