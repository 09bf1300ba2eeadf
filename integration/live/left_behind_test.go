// SPDX-License-Identifier: Apache-2.0

package live

import (
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
	"github.com/io-mig/mig/integration/internal/workload"
)

// TestRedisFetchesItsMemory: a Redis runs on the other host before its memory is
// there, and has all of it.
func TestRedisFetchesItsMemory(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		w := newWorld(t, version, image.Redis)
		const id = "redis"
		w.run(w.alpha, image.Redis, id)
		redis := workload.Redis{Daemon: w.alpha.d.Daemon, ID: id}
		if err := redis.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := redis.Fill(t.Context(), 50_000, 100); err != nil {
			t.Fatal(err)
		}
		want := w.proof(redis)
		from, to := w.alpha, w.beta
		for _, strategy := range []string{"post-copy", "hybrid"} {
			w.mustMove(from, "--strategy", strategy, id, to.IP)
			redis.Daemon = to.d.Daemon
			if got := w.proof(redis); got != want {
				t.Errorf("after %s on %s: %+v, want %+v", strategy, to.Name, got, want)
			}
			w.one(id, to, from)
			from, to = to, from
		}
	})
}
