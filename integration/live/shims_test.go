// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// TestDeathOfTheShims: the shim of either host is killed at any moment of a move,
// and its container there with it, as with any runtime. What was decided before
// stays decided: the source's shim takes the container along unless the copy was
// the container already; the destination's leaves it with the source unless it
// was not the source's any more. There are never two, nothing is left, and the id
// can be used again.
func TestDeathOfTheShims(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id = "counter"
	was := w.startCounter(id)
	within := w.warmUp(id)
	on, off := w.alpha, w.beta
	outcomes := map[string]int{}
	for i := range kills() {
		victim, side := on, "source"
		if i%2 == 1 {
			victim, side = off, "destination"
		}
		var r *report
		done := make(chan error, 1)
		go func() {
			var err error
			r, err = on.move(context.Background(), id, off.IP)
			done <- err
		}()
		time.Sleep(rand.N(within)) // the moment is the point
		err, killed := victim.killShim(id, done)
		if !killed {
			if err != nil {
				t.Fatalf("undisturbed: %v", err)
			}
			on, off = off, on
			outcomes[side+": not met"]++
			continue
		}
		runs := w.survivor(id, victim)
		moved := r != nil && r.Moved
		t.Logf("the %s's shim died; moved: %v; mig migrate says %v", side, moved, err)
		switch {
		case runs == nil && side == "source" && moved:
			t.Error("the copy was the container, and is gone with the source's shim")
		case runs == nil && side == "destination" && !moved:
			t.Error("the container was not moved, and is gone with the destination's shim")
		case runs == nil:
			outcomes[side+": gone with it"]++
			w.remove(id)
			was, on, off = w.startCounter(id), w.alpha, w.beta
		default:
			outcomes[side+": "+runs.Name+" of "+on.Name+" runs"]++
			w.same(runs, id, was)
			victim.d.Remove(id) // the record, which is no shim's
			on, off = runs, victim
		}
		if t.Failed() {
			break
		}
		w.clean(off, "lease mig-")
	}
	t.Log(outcomes)
	w.mustMove(on, id, off.IP)
	w.one(id, off, on)
	w.same(off, id, was)
}

// killShim kills the shim of a container's task, as soon as there is one. It
// returns what done says, and false if that came first.
func (h *host) killShim(id string, done chan error) (error, bool) {
	for {
		select {
		case err := <-done:
			return err, false
		default:
		}
		if pid := h.shimOf(id); pid > 0 {
			if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
				return <-done, true
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// shimOf is the server of a container's task on this host, 0 if there is none.
func (h *host) shimOf(id string) int {
	for _, line := range h.shims() {
		f := strings.Fields(line) // process PID: PROGRAM -namespace NS -id ID ...
		if len(f) < 7 || f[5] != "-id" || f[6] != id {
			continue
		}
		pid := strings.TrimSuffix(f[1], ":")
		status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
		// A child of the server that has not exec'ed yet has its words, and
		// another parent: the server's has ended.
		if err != nil || !strings.Contains(string(status), "\nPPid:\t1\n") {
			continue
		}
		if n, err := strconv.Atoi(pid); err == nil {
			return n
		}
	}
	return 0
}

// survivor waits until nothing of the container is on the host whose shim was
// killed, and it either runs on the other one or is gone there, too: nil.
func (w *world) survivor(id string, victim *host) (runs *host) {
	w.t.Helper()
	return w.rest(id, true, victim)
}

// remove removes what is left of a container that is gone.
func (w *world) remove(id string) {
	w.alpha.d.Remove(id)
	w.beta.d.Remove(id)
	w.clean(w.alpha, "lease mig-")
	w.clean(w.beta, "lease mig-")
}
