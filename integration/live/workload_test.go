// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// outcome is what mig migrate says.
type outcome struct {
	report *report
	err    error
}

// start begins a move.
func (h *host) start(args ...string) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		r, err := h.move(context.Background(), args...)
		done <- outcome{r, err}
	}()
	return done
}

// TestWorkloadEndsMeanwhile: the program ends at any moment of the move. Its copy
// runs if it was decided by then; otherwise nothing runs anywhere, the end is known
// where the program was, and the other host has nothing of it.
func TestWorkloadEndsMeanwhile(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id = "counter"
	was := w.startCounter(id)
	within := w.warmUp(id)
	moved := 0
	for range kills() {
		done := w.alpha.start(id, w.beta.IP)
		time.Sleep(rand.N(within)) // the moment is the point
		killed := w.alpha.d.Ctr(t.Context(), "tasks", "kill", "--signal", "SIGKILL", id).Err() == nil
		said := <-done
		if said.err == nil {
			moved++
			w.one(id, w.beta, w.alpha)
			w.same(w.beta, id, was)
			w.beta.d.Remove(id)
		} else {
			if !killed {
				t.Errorf("it was not killed, and mig migrate says %v", said.err)
			}
			if why := said.err.Error(); !strings.Contains(why, "does not run") && !strings.Contains(why, "is stopped") {
				t.Errorf("mig migrate does not say that it has ended: %v", said.err)
			}
			t.Log("mig migrate says", said.err)
			waitFor(t, settleWithin, "its end is known", func() bool { return w.alpha.status(id) == "STOPPED" && len(w.processes()) == 0 })
			w.clean(w.beta, "lease mig-")
			w.alpha.d.Remove(id)
		}
		was = w.startCounter(id)
	}
	t.Logf("of %d moves %d had been decided", kills(), moved)
}

// TestTwoMovesAtOnce: of two moves of one container one is refused, and says so.
func TestTwoMovesAtOnce(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id = "counter"
	was := w.startCounter(id)
	from, to := w.alpha, w.beta
	for range 3 {
		var failed error
		moved := 0
		moves := []<-chan outcome{from.start(id, to.IP), from.start(id, to.IP)}
		for _, done := range moves {
			if said := <-done; said.err == nil {
				moved++
			} else {
				failed = errors.Join(failed, said.err)
			}
		}
		if moved != 1 {
			t.Fatalf("%d of two moves have succeeded: %v", moved, failed)
		}
		t.Log("the other one says", failed)
		w.one(id, to, from)
		w.same(to, id, was)
		from, to = to, from
	}
}
