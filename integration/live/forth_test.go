// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/traffic"
)

// footprint is what a host has of what a leak would make more.
type footprint struct {
	memory      int // kB, resident, of containerd and migd
	descriptors int // of both
	mounts      int
	cgroups     int // of containers
}

// TestRedisBackAndForth: under load, again and again; no client sees an error, and
// neither host has more of anything at the end than after the first moves.
// MIG_BACK_AND_FORTH=200 for what make soak does.
func TestRedisBackAndForth(t *testing.T) {
	moves := number(t, "MIG_BACK_AND_FORTH", 6)
	w := newPod(t, image.Redis, 6379, traffic.RedisCommand...)
	load, err := w.clients().RedisBenchmark(podIP4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = load.Close() })
	l := w.echo(5, podIP4+":6379")
	from, to := w.alpha, w.beta
	var before map[string]footprint
	const warm = 4 // even: the container is back on alpha
	moves += moves % 2
	for n := range moves + warm {
		if n == warm {
			w.one("server", w.alpha, w.beta)
			before = w.footprints()
		}
		w.mustMove(from, "server", to.IP, "--tcp", "keep")
		w.answered(l, 20)
		if err := l.Err(); err != nil {
			t.Fatalf("after %d moves: a client: %v", n+1, err)
		}
		from, to = to, from
	}
	_ = l.Close()
	if err := load.Close(); err != nil {
		t.Error(err)
	}
	w.one("server", w.alpha, w.beta)
	w.grown(moves, before, w.footprints())
}

// grown checks that hosts have no more than before so many moves.
func (w *world) grown(moves int, before, after map[string]footprint) {
	w.t.Helper()
	for name, b := range before {
		a := after[name]
		w.t.Logf("%s: before %+v, after %d moves %+v", name, b, moves, a)
		// A collected heap is not given back at once, and connections are kept for a while.
		const slackMemory, slackDescriptors = 24 << 10, 8
		if a.mounts > b.mounts || a.cgroups > b.cgroups || a.descriptors > b.descriptors+slackDescriptors || a.memory > b.memory+slackMemory {
			w.t.Errorf("%s has more than before", name)
		}
	}
}

// footprints looks at both hosts.
func (w *world) footprints() map[string]footprint {
	w.t.Helper()
	out := map[string]footprint{}
	for _, h := range []*host{w.alpha, w.beta} {
		f := footprint{mounts: len(h.Mounts("/")), cgroups: len(h.Cgroups())}
		for _, pid := range []int{h.migd.cmd.Process.Pid, h.d.Pid()} {
			list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				w.t.Fatal(err)
			}
			f.descriptors += len(list)
			f.memory += resident(w.t, pid)
		}
		out[h.Name] = f
	}
	return out
}

// resident is the memory of a process, in kB.
func resident(t *testing.T, pid int) (kb int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, _ = fmt.Sscan(rest, &kb)
		}
	}
	return kb
}
