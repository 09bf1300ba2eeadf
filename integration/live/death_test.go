// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// kills is how often something is killed; MIG_KILLS sets another number.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("MIG_KILLS")); err == nil {
		return max(3, n/20)
	}
	return 5
}

// settleWithin is how long two hosts may take to agree after a death.
const settleWithin = 60 * time.Second

// settled waits until the container runs on one host and nothing of a move is
// left on the other, and returns the former.
func (w *world) settled(id string) (on, off *host) {
	w.t.Helper()
	on = w.rest(id, false)
	return on, w.other(on)
}

// rest waits until no move is under way and the container runs on one host, which it
// returns; on those whose shim is dead nothing of it is. With gone it may also have
// ended everywhere: nil.
func (w *world) rest(id string, gone bool, dead ...*host) (on *host) {
	w.t.Helper()
	pair := []*host{w.alpha, w.beta}
	waitFor(w.t, settleWithin, "one copy, or none where that may be, and nothing else", func() bool {
		if slices.ContainsFunc(dead, func(h *host) bool { return h.status(id) != "" }) || slices.ContainsFunc(pair, (*host).onItsWay) {
			return false
		}
		n := len(w.processes())
		// Who runs is asked last: an original may be ended while the others are asked.
		runs := slices.DeleteFunc(slices.Clone(pair), func(h *host) bool { return h.status(id) != "RUNNING" })
		if n == 1 && len(runs) == 1 {
			on = runs[0]
			return true
		}
		return gone && n == 0 && len(runs) == 0
	})
	return on
}

// other is the other of the two hosts.
func (w *world) other(h *host) *host {
	if h == w.alpha {
		return w.beta
	}
	return w.alpha
}

// warmUp moves the container there and back, and returns about how long a move
// takes on this machine, so that deaths come at every moment of it. The shorter
// one counts: a busy machine makes single moves longer, and most deaths would come
// when all is over.
func (w *world) warmUp(id string) time.Duration {
	w.t.Helper()
	there := w.mustMove(w.alpha, id, w.beta.IP)
	back := w.mustMove(w.beta, id, w.alpha.IP)
	return time.Duration(1.1 * min(there.TotalMS, back.TotalMS) * float64(time.Millisecond))
}

// onItsWay: a container of this host bears the label of a move.
func (h *host) onItsWay() bool {
	return h.d.Ctr(context.Background(), "containers", "ls", "-q", `labels."io.mig/incoming"`).Stdout != ""
}

// TestDeathOfTheCoordinator: mig migrate is killed at any moment. One copy runs
// afterwards, the one it was before, and the next move works.
func TestDeathOfTheCoordinator(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id = "counter"
	was := w.startCounter(id)
	on, off := w.alpha, w.beta
	within := w.warmUp(id)
	moved := 0
	for range kills() {
		cmd := on.migrate(t.Context(), id, off.IP)
		cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(within)) // the moment is the point
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		before := on
		on, off = w.settled(id)
		if on != before {
			moved++
			off.d.Remove(id) // what the coordinator did not live to remove
		}
		w.same(on, id, was)
		w.clean(off, "lease mig-") // with what was copied, for the next attempt, an hour long
	}
	t.Logf("of %d moves %d had been decided", kills(), moved)
	w.mustMove(on, id, off.IP)
	w.one(id, off, on)
	w.same(off, id, was)
}

// TestDeathOfTheDaemon: the destination's migd is killed at any moment and
// started again. One copy runs afterwards.
func TestDeathOfTheDaemon(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id = "counter"
	was := w.startCounter(id)
	on, off := w.alpha, w.beta
	within := w.warmUp(id)
	moved := 0
	for range kills() {
		done := make(chan error, 1)
		go func() {
			_, err := on.move(context.Background(), id, off.IP)
			done <- err
		}()
		time.Sleep(rand.N(within)) // the moment is the point
		if err := off.migd.stop(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		off.migd = w.startMigd(off)
		err := <-done
		before := on
		on, off = w.settled(id)
		if on != before {
			moved++
			if err != nil {
				t.Errorf("the container has moved, mig migrate says %v", err)
			}
		} else if err == nil {
			t.Error("the container has not moved, mig migrate says that it has")
		}
		w.same(on, id, was)
		w.clean(off)
	}
	t.Logf("of %d moves %d arrived", kills(), moved)
	w.mustMove(on, id, off.IP)
	w.one(id, off, on)
	w.same(off, id, was)
}
