// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/bench/driver"
)

// timeout of one server.
const timeout = 10 * time.Minute

func rounds(t *testing.T) int {
	if text := os.Getenv("MIG_SERVER_ROUNDS"); text != "" {
		n, err := strconv.Atoi(text)
		must(t, err)
		return n
	}
	return 2
}

// TestServers takes each server, at work, through checkpoints and restores.
func TestServers(t *testing.T) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			c := shared.start(ctx, t, s)
			for n := range rounds(t) {
				c = shared.next(ctx, t, s, c, n)
			}
			if out, err := inside(ctx, c, s.verify); err != nil {
				t.Fatalf("verification: %v: %s", err, out)
			}
		})
	}
}

// start runs a server until all its clients are at work.
func (h *host) start(ctx context.Context, t *testing.T, s server) *driver.Container {
	t.Helper()
	c := h.container(t, s.start, nil)
	must(t, h.mig.Run(ctx, c))
	h.removeLater(t, c)
	h.moves(t, c, s.clients, nil)
	return c
}

// next is the server after a checkpoint and a restore. Every second round goes
// by a checkpoint that leaves the original running: paused, as containerd's
// client does it, for the copy of its files.
func (h *host) next(ctx context.Context, t *testing.T, s server, c *driver.Container, n int) *driver.Container {
	t.Helper()
	leave := n%2 == 1
	if leave {
		must(t, h.mig.Pause(ctx, c))
	}
	image := filepath.Join(h.Dir, "images", c.ID)
	_, err := h.mig.Checkpoint(ctx, c, image, leave)
	if err != nil {
		t.Fatalf("round %d: %v", n, err)
	}
	was := h.counters(t, c)
	after := h.container(t, s.start, c)
	if leave {
		must(t, h.mig.Resume(ctx, c))
		h.moves(t, c, s.clients, was)
	}
	must(t, h.mig.Remove(ctx, c))
	if _, err := h.mig.Restore(ctx, after, image); err != nil {
		t.Fatalf("round %d: %v", n, err)
	}
	h.removeLater(t, after)
	h.moves(t, after, s.clients, was)
	must(t, os.RemoveAll(image))
	return after
}

func (h *host) removeLater(t *testing.T, c *driver.Container) {
	t.Cleanup(func() {
		if err := h.mig.Remove(context.Background(), c); err != nil {
			t.Error(err)
		}
	})
}
