// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// refused fails the test unless a checkpoint is refused with these words, and
// the container runs on.
func (b *box) refused(patterns ...string) {
	b.t.Helper()
	dir := filepath.Join(b.t.TempDir(), "image")
	err := b.tryCheckpoint(dir, false)
	if err == nil {
		b.t.Fatal("the checkpoint was not refused")
	}
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(err.Error()) {
			b.t.Errorf("the refusal does not say %q: %v", p, err)
		}
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		b.t.Errorf("a refused checkpoint left %v", entries)
	}
	if got := b.status(); got != client.Running {
		b.t.Errorf("after the refusal it is %s", got)
	}
	b.lives("after the refusal")
}

// TestExecSession: its streams lead to somebody outside, so that it is refused
// by name where the container says so. When it is over, a checkpoint works.
func TestExecSession(t *testing.T) {
	h := startHost(t, daemon.V24)
	b := h.run(t, "visited", variant{spec: []oci.SpecOpts{oci.WithAnnotations(map[string]string{"io.mig/exec": "refuse"})}})
	b.lives("at first")
	h.Must(t, "tasks", "exec", "--detach", "--exec-id", "visitor", b.id, "sleep", "1000")
	b.refused("exec session")
	h.Must(t, "tasks", "kill", "--exec-id", "visitor", "--signal", "KILL", b.id)
	dir := ""
	for {
		// The session ends a moment after it was killed.
		dir = filepath.Join(t.TempDir(), "image")
		if err := b.tryCheckpoint(dir, false); err == nil {
			break
		} else if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	b.remove()
	r := h.restore(t, "visited-again", variant{}, dir)
	r.lives("after the restore")
	if got := r.exec("echo", "hello"); got != "hello" {
		t.Errorf("exec in the copy says %q", got)
	}
	r.remove()
}
