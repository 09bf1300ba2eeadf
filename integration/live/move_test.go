// SPDX-License-Identifier: Apache-2.0

package live

import (
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
	"github.com/io-mig/mig/integration/internal/workload"
)

// TestRedisThereAndBack: a Redis with data moves to a host that has not even its
// image, and back. Every key is there each time, the process is the same, and
// nothing is left where it was.
func TestRedisThereAndBack(t *testing.T) {
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
		for way := range 2 {
			r := w.mustMove(from, id, to.IP)
			if copied := r.ImageBytes > 0; copied != (way == 0) {
				t.Errorf("on way %d %d bytes of the image were copied", way, r.ImageBytes)
			}
			w.one(id, to, from)
			redis.Daemon = to.d.Daemon
			if got := w.proof(redis); got != want {
				t.Errorf("on %s: %+v, want %+v", to.Name, got, want)
			}
			from, to = to, from
		}
	})
}

// run starts a container under mig and sees to its end.
func (w *world) run(h *host, i image.Image, id string, command ...string) {
	w.t.Helper()
	args := []string{"run", "--detach", "--null-io", "--snapshotter", h.d.Snapshotter, "--runtime", itest.Mig, i.Name, id}
	h.d.Must(w.t, append(args, command...)...)
	w.t.Cleanup(func() {
		w.alpha.d.Remove(id)
		w.beta.d.Remove(id)
	})
}

func (w *world) proof(r workload.Redis) workload.Proof {
	w.t.Helper()
	p, err := r.Proof(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}
