// SPDX-License-Identifier: Apache-2.0

package live

import (
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// TestThreadsApartMove: a program of which two threads have a descriptor table and
// directories of their own moves back and forth, by every way to carry memory. What it
// is asked meanwhile comes by a socket that only these threads have.
func TestThreadsApartMove(t *testing.T) {
	i := witness(t, "apart")
	w := newWorld(t, daemon.V24, i)
	w.runPod(i, "apart", "/apart")
	c := w.questions()
	w.good(c, "verify")
	from, to := w.alpha, w.beta
	for _, strategy := range []string{"pre-copy", "post-copy", "hybrid", "stop-and-copy"} {
		w.mustMove(from, "--strategy", strategy, "apart", to.IP)
		w.good(c, "verify")
		w.one("apart", to, from)
		from, to = to, from
	}
}
