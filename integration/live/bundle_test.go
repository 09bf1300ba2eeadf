// SPDX-License-Identifier: Apache-2.0

package live

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// TestAbandonedBundle: containerd was killed while it removed a bundle, after it
// had renamed it. The id can be used all the same, again and again.
func TestAbandonedBundle(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id = "counter"
	was := w.startCounter(id)
	for _, dir := range []string{"state", "root"} {
		left := filepath.Join(w.beta.d.Dir, dir, "io.containerd.runtime.v2.task", w.lab.Name, "."+id)
		if err := os.MkdirAll(left, 0o711); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(left, "config.json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		w.mustMove(w.alpha, id, w.beta.IP)
		w.mustMove(w.beta, id, w.alpha.IP)
	}
	w.one(id, w.alpha, w.beta)
	w.same(w.alpha, id, was)
}
