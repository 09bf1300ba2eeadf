// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
	"github.com/io-mig/mig/integration/internal/repo"
	"github.com/io-mig/mig/integration/internal/traffic"
)

// goalSilence is how long clients may hear nothing, in times of how long mig says
// that it stopped the container.
const goalSilence = 3

// trafficMoves is how often each server is moved under load.
func trafficMoves(t *testing.T) int { return number(t, "MIG_TRAFFIC_MOVES", 5) }

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number", name, text)
	}
	return n
}

// underLoad moves a server there and back while its clients are at work. A move at
// whose end they had stopped does not count.
func underLoad(t *testing.T, s traffic.Server) {
	t.Helper()
	w := newPod(t, s.Image, s.Port, s.Command...)
	load, err := s.Work(t.Context(), w.clients(), podIP4)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := load.Close(); err != nil {
			t.Error(err)
		}
	}()
	var ratios, silences, stops []float64
	from, to, n := w.alpha, w.beta, trafficMoves(t)
	for tries := 0; len(ratios) < n; tries++ {
		if tries == 2*n+5 {
			t.Fatalf("in %d moves the clients had stopped before the end", tries-len(ratios))
		}
		if err := load.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := w.mustMove(from, "server", to.IP, "--tcp", "keep")
		seen, err := load.End()
		if errors.Is(err, traffic.ErrNoEnd) {
			t.Log(itest.Evidence())
		}
		if err == nil {
			err = seen.Err()
		}
		if err != nil {
			t.Fatal(err)
		}
		if from, to = to, from; seen.Until.Before(r.switched()) {
			continue
		}
		silence := float64(seen.Silence.Microseconds()) / 1000
		ratios, silences, stops = append(ratios, silence/r.DowntimeMS), append(silences, silence), append(stops, r.DowntimeMS)
	}
	t.Logf("%d moves: longest silence of a client %.1f ms (median; worst %.1f), stopped for %.1f ms (median): %.2f times as long (median; worst %.2f)",
		n, median(silences), slices.Max(silences), median(stops), median(ratios), slices.Max(ratios))
	if m := median(ratios); m > goalSilence {
		t.Errorf("clients hear nothing for %.1f times as long as the container is stopped, goal: %d", m, goalSilence)
	}
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(list))
	return s[len(s)/2]
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// newPod makes the hosts with a container in its own network.
func newPod(t *testing.T, i image.Image, port int, command ...string) *world {
	t.Helper()
	w := newWorld(t, daemon.V24, i)
	w.runPod(i, "server", command...)
	w.listens(fmt.Sprintf("%s:%d", podIP4, port))
	return w
}

func checkout(t *testing.T) repo.Tree {
	t.Helper()
	tree, err := repo.Find()
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// talk is the image of cmd/talk.
func talk(t *testing.T) image.Image { return traffic.Talk(checkout(t)) }

// TestTrafficRedis: 50 connections of redis-benchmark, and some that measure.
func TestTrafficRedis(t *testing.T) { underLoad(t, traffic.Redis()) }

// TestTrafficNginx: wrk with 20 connections that are kept.
func TestTrafficNginx(t *testing.T) { underLoad(t, traffic.Nginx()) }

// TestTrafficPostgreSQL: pgbench, whose transactions are logged one by one.
func TestTrafficPostgreSQL(t *testing.T) { underLoad(t, traffic.PostgreSQL()) }

// TestTrafficDownload: one large answer comes while the server moves again and
// again, every byte of it, and at no time nothing for long.
func TestTrafficDownload(t *testing.T) {
	size, rate := int64(number(t, "MIG_TRAFFIC_MEGABYTES", 500))<<20, number(t, "MIG_TRAFFIC_RATE", 25)<<20
	underLoad(t, traffic.Download(checkout(t), size, rate))
}

// TestTrafficWebSocket: messages that come back one by one.
func TestTrafficWebSocket(t *testing.T) { underLoad(t, traffic.WebSocket(checkout(t))) }

// TestTrafficSSH: a session whose command answers line by line.
func TestTrafficSSH(t *testing.T) {
	s, err := traffic.SSH(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	underLoad(t, s)
}
