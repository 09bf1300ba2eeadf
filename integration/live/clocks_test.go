// SPDX-License-Identifier: Apache-2.0

package live

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/lab"
)

// TestClocksMove: the other host was started eleven days earlier. There and back
// CLOCK_MONOTONIC and CLOCK_BOOTTIME do not jump, timers of every kind go on, and what
// was set to a time fires at it.
func TestClocksMove(t *testing.T) {
	const earlier = 1_000_000 * time.Second
	i := witness(t, "clocks")
	w := newWorldOf(t, "", func(l *lab.Lab) error { return l.Hosts[1].StartedBefore(earlier) }, daemon.V24, i)
	if d := w.uptime(w.beta) - w.uptime(w.alpha); d < earlier-time.Minute || d > earlier+time.Minute {
		t.Fatalf("the hosts' clocks are %s apart", d)
	}
	w.runPod(i, "clocks")
	c := w.questions()
	w.good(c, "verify")
	from, to := w.alpha, w.beta
	for range 3 {
		w.mustMove(from, "clocks", to.IP)
		w.good(c, "verify")
		from, to = to, from
	}
	var said string
	waitFor(t, patience, "alarms fire", func() bool { said = w.answer(c, "late"); return said != "waits" })
	if said != "good" {
		t.Error(said)
	}
}

// uptime is how long a host has run, as /proc says there.
func (w *world) uptime(h *host) time.Duration {
	w.t.Helper()
	out, err := h.Command(w.t.Context(), "cut", "-d.", "-f1", "/proc/uptime").Output()
	if err != nil {
		w.t.Fatal(err)
	}
	seconds, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		w.t.Fatal(err)
	}
	return time.Duration(seconds) * time.Second
}
