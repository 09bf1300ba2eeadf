// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// TestDeathOfContainerd: containerd of either host is killed at any moment of a
// move and started again. One copy runs afterwards, and the next move works.
func TestDeathOfContainerd(t *testing.T) {
	w := newWorld(t, daemon.V24)
	const id = "counter"
	was := w.startCounter(id)
	on, off := w.alpha, w.beta
	within := w.warmUp(id)
	for i := range kills() {
		victim, side := off, "destination"
		if i%2 == 1 {
			victim, side = on, "source"
		}
		done := make(chan error, 1)
		go func() {
			_, err := on.move(context.Background(), id, off.IP)
			done <- err
		}()
		time.Sleep(rand.N(within)) // the moment is the point
		if err := victim.d.Restart(t.Context(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		err := <-done
		before := on
		on, off = w.settled(id)
		t.Logf("containerd of the %s died; it is on %s; mig migrate says %v", side, on.Name, err)
		if on != before {
			off.d.Remove(id) // what the coordinator could not remove
		} else if err == nil {
			t.Error("the container has not moved, mig migrate says that it has")
		}
		w.same(on, id, was)
		w.clean(off, "lease mig-") // with what was copied, for the next attempt
	}
	w.mustMove(on, id, off.IP)
	w.one(id, off, on)
	w.same(off, id, was)
}
