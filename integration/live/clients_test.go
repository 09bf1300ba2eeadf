// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/traffic"
)

// listens waits until somebody answers at an address.
func (w *world) listens(address string) {
	w.t.Helper()
	if err := w.clients().Listens(w.t.Context(), address); err != nil {
		w.t.Fatal(err)
	}
}

// patience is how long a client waits for an answer.
const patience = 30 * time.Second

// echo has clients of a Redis ask, until the end of the test.
func (w *world) echo(clients int, address string) *traffic.Asking {
	w.t.Helper()
	dial := func(ctx context.Context) (net.Conn, error) { return w.dial(ctx, address) }
	a, err := traffic.Ask(w.t.Context(), clients, time.Millisecond, dial, traffic.Echoes)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = a.Close() })
	return a
}

// answered waits for so many answers more.
func (w *world) answered(a *traffic.Asking, n int) {
	w.t.Helper()
	if err := a.Answered(n); err != nil {
		w.t.Fatal(err)
	}
}

// measured moves a container there and back while clients are at work, and compares
// the silence that they see with the time for which mig stopped the container.
func (w *world) measured(a *traffic.Asking, id string, moves int) {
	w.t.Helper()
	from, to := w.alpha, w.beta
	a.Enough = 500
	for range moves {
		w.answered(a, 100)
		_ = a.Begin(w.t.Context())
		r := w.mustMove(from, id, to.IP, "--tcp", "keep")
		seen, err := a.End()
		if err == nil {
			err = seen.Err()
		}
		if err != nil {
			w.t.Fatalf("clients: %v", err)
		}
		silence := float64(seen.Silence.Microseconds()) / 1000
		w.t.Logf("the clients were without an answer for %.1f ms, %.2f times as long as mig had stopped it", silence, silence/r.DowntimeMS)
		from, to = to, from
	}
}

// TestRedisClientsGoOn: clients of a Redis, over IPv4 and IPv6, do not notice that
// it moves.
func TestRedisClientsGoOn(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Redis)
	w.runPod(image.Redis, "redis", traffic.RedisCommand...)
	for _, address := range []string{podIP4 + ":6379", "[" + podIP6 + "]:6379"} {
		w.listens(address)
		a := w.echo(25, address)
		w.measured(a, "redis", 2)
		_ = a.Close()
	}
}
