// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// sleeper runs a container that sleeps.
func (w *world) sleeper(id string) {
	w.t.Helper()
	w.run(w.alpha, image.Busybox, id, "sleep", "1000")
}

// TestFlags: what the flags of mig migrate promise, and what others see of it.
func TestFlags(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	t.Run("keep", func(t *testing.T) {
		w.sleeper("kept")
		r := w.mustMove(w.alpha, "--keep", "kept", w.beta.IP)
		if st := w.alpha.status("kept"); r.Removed || st != "STOPPED" {
			t.Errorf("on the source it is %q: %+v", st, r)
		}
		w.alpha.d.Remove("kept")
		w.one("kept", w.beta, w.alpha)
		w.beta.d.Remove("kept")
	})
	t.Run("report", func(t *testing.T) {
		w.sleeper("shown")
		page := filepath.Join(t.TempDir(), "out.html")
		w.mustMove(w.alpha, "--report", page, "shown", w.beta.IP)
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"<svg", "alpha", "beta", "residual", "committed", "clean up"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("the report has no %q", want)
			}
		}
		if strings.Contains(string(b), "http") {
			t.Error("the report needs the network")
		}
		w.beta.d.Remove("shown")
	})
	t.Run("strategies", func(t *testing.T) {
		w.sleeper("ways")
		from, to := w.alpha, w.beta
		for _, flags := range [][]string{
			{"--strategy", "stop-and-copy", "--compress", "zstd"}, {"--strategy", "pre-copy", "--streams", "3", "--compress", "none"},
		} {
			w.mustMove(from, append(flags, "ways", to.IP)...)
			w.one("ways", to, from)
			from, to = to, from
		}
		w.alpha.d.Remove("ways")
	})
	t.Run("log", func(t *testing.T) {
		dir := t.TempDir()
		before, after := filepath.Join(dir, "before.log"), filepath.Join(dir, "after.log")
		w.speaker("speaks", "--log-uri", "file://"+before)
		w.mustMove(w.alpha, "--log-uri", "file://"+after, "speaks", w.beta.IP)
		w.grows(t, after)
		w.one("speaks", w.beta, w.alpha)
		// Without the flag it goes on where it is.
		w.mustMove(w.beta, "speaks", w.alpha.IP)
		w.grows(t, after)
		w.alpha.d.Remove("speaks")
	})
	t.Run("streams of a client that stays behind", func(t *testing.T) {
		w.speaker("mute")
		r := w.mustMove(w.alpha, "mute", w.beta.IP)
		if !strings.Contains(fmt.Sprint(r.Warnings), "standard output (/") {
			t.Errorf("warnings: %q", r.Warnings)
		}
		before := w.beta.count(t, "mute")
		waitFor(t, migdReady, "the container speaks on", func() bool { return w.beta.count(t, "mute") > before })
		w.one("mute", w.beta, w.alpha)
		w.beta.d.Remove("mute")
	})
	t.Run("status", func(t *testing.T) {
		w.sleeper("seen")
		r := w.mustMove(w.alpha, "seen", w.beta.IP)
		for h, kind := range map[*host]string{w.alpha: "move out", w.beta: "move in"} {
			out, err := h.Command(t.Context(), h.d.Tree.Bin("mig"), "status").CombinedOutput()
			if err != nil || !strings.Contains(string(out), kind) {
				t.Errorf("mig status on %s: %v: %s", h.Name, err, out)
			}
			out, err = h.Command(t.Context(), h.d.Tree.Bin("mig"), "status", r.Token).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "succeeded") || !strings.Contains(string(out), "seen") {
				t.Errorf("mig status TOKEN on %s: %v: %s", h.Name, err, out)
			}
		}
		w.beta.d.Remove("seen")
	})
	t.Run("metrics", func(t *testing.T) {
		out, err := w.beta.Command(t.Context(), "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:9117/metrics").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, want := range []string{`mig_moves_total{result="arrived"}`, "mig_move_downtime_seconds_count", "mig_certificate_expiry_timestamp_seconds 1", "mig_moves_active 0"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("no %s in the metrics:\n%s", want, out)
			}
		}
	})
	w.clean(w.alpha)
	w.clean(w.beta)
}

// TestDrain: every container of a host moves, and one that cannot is no matter
// to the others.
func TestDrain(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	for i := range 4 {
		w.sleeper(fmt.Sprint("c", i))
	}
	w.beta.d.Load(t, image.Busybox)
	w.run(w.beta, image.Busybox, "c2", "sleep", "1000") // its id is taken
	w.alpha.d.Must(t, "run", "--detach", "--null-io", "--snapshotter", w.alpha.d.Snapshotter, "--runtime", "io.containerd.runc.v2", image.Busybox.Name, "alien", "sleep", "1000")
	var out, errs bytes.Buffer
	cmd := w.alpha.migrate(t.Context(), "--all", "--parallel", "2", w.beta.IP)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err == nil || !strings.Contains(errs.String(), "1 of 4 containers were not moved") {
		t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	var d struct {
		Moved, Failed int
		Moves         []report
		Others        []string
	}
	if err := json.Unmarshal(out.Bytes(), &d); err != nil || d.Moved != 3 || d.Failed != 1 || len(d.Moves) != 4 || !slices.Equal(d.Others, []string{"alien"}) {
		t.Fatalf("%+v, %v", d, err)
	}
	for i := range 4 {
		id := fmt.Sprint("c", i)
		here, there := w.alpha.status(id), w.beta.status(id)
		if here != map[bool]string{true: "RUNNING", false: ""}[i == 2] || there != "RUNNING" {
			t.Errorf("%s is %q on alpha and %q on beta", id, here, there)
		}
	}
	if here := w.alpha.status("alien"); here != "RUNNING" {
		t.Errorf("the container of another runtime is %q", here)
	}
	w.alpha.d.Remove("alien")
	w.alpha.d.Remove("c2")
	w.clean(w.alpha)
}

// TestCheckpointCommandMoves: any client of containerd moves a container by a
// checkpoint to the destination's address.
func TestCheckpointCommandMoves(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	w.sleeper("web")
	address := fmt.Sprintf("mig://%s?tls=%s", w.beta.IP, w.alpha.tls)
	if err := w.alpha.d.Ctr(t.Context(), "tasks", "checkpoint", "--exit", "--image-path", address, "web").Err(); err != nil {
		t.Fatal(err)
	}
	if here, there := w.alpha.status("web"), w.beta.status("web"); here != "STOPPED" && here != "" || there != "RUNNING" {
		t.Errorf("on alpha it is %q, on beta %q", here, there)
	}
	w.alpha.d.Remove("web")
	w.one("web", w.beta, w.alpha)
	// A move that is refused leaves it running.
	w.sleeper("web2")
	err := w.alpha.d.Ctr(t.Context(), "tasks", "checkpoint", "--exit", "--image-path", address+"&peer=gamma", "web2").Err()
	if err == nil || !strings.Contains(err.Error(), "gamma") || w.alpha.status("web2") != "RUNNING" {
		t.Errorf("%v; it is %q", err, w.alpha.status("web2"))
	}
}

// speaker runs a container that speaks and counts what it says in a file.
func (w *world) speaker(id string, args ...string) {
	w.t.Helper()
	full := append([]string{"run", "--detach", "--snapshotter", w.alpha.d.Snapshotter, "--runtime", itest.Mig}, args...)
	const program = "n=0; while echo tick; do n=$((n+1)); echo $n >/run/n; sleep 0.05; done"
	w.alpha.d.Must(w.t, append(full, image.Busybox.Name, id, "sh", "-c", program)...)
	w.t.Cleanup(func() {
		w.alpha.d.Remove(id)
		w.beta.d.Remove(id)
	})
}

// count is what a speaker has said so far.
func (h *host) count(t *testing.T, id string) int {
	t.Helper()
	n, _ := strconv.Atoi(h.read(t, id, "/run/n")) // empty while it is written
	return n
}

// grows waits until a log has got more.
func (w *world) grows(t *testing.T, log string) {
	t.Helper()
	size := func() int64 {
		st, err := os.Stat(log)
		if err != nil {
			return 0
		}
		return st.Size()
	}
	before := size()
	waitFor(t, migdReady, log+" grows", func() bool { return size() > before })
}
