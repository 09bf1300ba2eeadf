// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// TestAgentForced: an application that does not come to rest keeps its container from
// moving, unless the move says that it goes on without it; the copy is told all the same.
func TestAgentForced(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id = "agent"
	i := image.Image{
		Name: "mig.test/agent:1", Command: []string{"/app", "/run/list"}, Extra: map[string]string{"/app": w.alpha.d.Tree.Tool("agent-example")},
	}
	w.alpha.d.Load(t, i)
	t.Cleanup(func() {
		w.alpha.d.Remove(id)
		w.beta.d.Remove(id)
	})
	w.alpha.d.Must(t, "run", "--detach", "--null-io", "--snapshotter", w.alpha.d.Snapshotter, "--runtime", itest.Mig,
		"--annotation", "io.mig/agent=true", "--annotation", "io.mig/agent-timeout=2s", i.Name, id)
	told := func(h *host, want string) {
		t.Helper()
		waitFor(t, migdReady, want+" on "+h.Name, func() bool {
			return strings.Contains(h.d.Ctr(t.Context(), "tasks", "exec", "--exec-id", execID(), id, "cat", "/run/list").Stdout, want)
		})
	}
	told(w.alpha, "ready")
	w.alpha.d.Must(t, "tasks", "exec", "--exec-id", execID(), id, "touch", "/run/hang")
	if _, err := w.alpha.move(t.Context(), id, w.beta.IP); err == nil || !strings.Contains(err.Error(), "does not come to rest") {
		t.Errorf("a move of an application that hangs: %v", err)
	}
	told(w.alpha, "after restored=false")
	w.mustMove(w.alpha, id, w.beta.IP, "--policy", "agent-force=true")
	told(w.beta, "after restored=true")
}

// TestAgentMovesItself: an application asks for its own move, comes to rest, and
// hears on the other host that it is the copy; then a person moves it back.
func TestAgentMovesItself(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id, list = "agent", "/run/list"
	i := image.Image{
		Name: "mig.test/agent:1", Command: []string{"/app", list}, Extra: map[string]string{"/app": w.alpha.d.Tree.Tool("agent-example")},
	}
	w.alpha.d.Load(t, i)
	t.Cleanup(func() {
		w.alpha.d.Remove(id)
		w.beta.d.Remove(id)
	})
	w.alpha.d.Must(t, "run", "--detach", "--null-io", "--snapshotter", w.alpha.d.Snapshotter, "--runtime", itest.Mig,
		"--annotation", "io.mig/agent=true", "--env", "HOST="+w.beta.IP,
		"--annotation", fmt.Sprintf("io.mig/agent-migrate=%s?tls=%s", w.beta.IP, w.alpha.tls), i.Name, id)
	told := func(h *host, want string) string {
		t.Helper()
		var out string
		waitFor(t, migdReady, want+" on "+h.Name, func() bool {
			r := h.d.Ctr(t.Context(), "tasks", "exec", "--exec-id", execID(), id, "cat", list)
			out = r.Stdout
			return strings.Contains(out, want)
		})
		return out
	}
	told(w.alpha, "ready")
	w.alpha.d.Must(t, "tasks", "kill", "--signal", "SIGUSR2", id)
	first := told(w.beta, "after restored=true")
	if !strings.Contains(first, "before move=true") || strings.Contains(first, "behind the barrier") {
		t.Errorf("the application was told %q", first)
	}
	// Nobody but its owner removes what has ended by itself.
	waitFor(t, migdReady, "the original has ended", func() bool {
		return strings.Contains(w.alpha.d.Ctr(t.Context(), "tasks", "list").Stdout, "STOPPED")
	})
	w.alpha.d.Remove(id)
	w.mustMove(w.beta, id, w.alpha.IP)
	waitFor(t, migdReady, "it is told of the second move", func() bool {
		return strings.Count(told(w.alpha, "ready"), "after restored=true") == 2
	})
}
