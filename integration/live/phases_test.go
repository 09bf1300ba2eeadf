// SPDX-License-Identifier: Apache-2.0

package live

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/image"
)

// phase is where a move is when the cable is taken out.
type phase struct {
	name string
	// step at which an engine is stopped until the cable is out.
	step  string
	flags []string
	// flows: it goes on before that, and the cable is taken out while it sends.
	flows bool
	// waits: the coordinator may not know the outcome as long as the cable is out.
	waits bool
	// moves: the copy is the container, however long the cable is out.
	moves bool
	// begins: the clocks of the copy have not begun. A move that is held up there for
	// seconds, as here by the stopped engine, is undone at its end.
	begins bool
}

var phases = []phase{
	{name: "handshake", begins: true},
	{name: "prepared", step: "destination: PREPARED sent", begins: true},
	{name: "files", step: "source: early", flags: slowly, flows: true},
	{name: "rounds", step: "source: early", flags: slowly, flows: true},
	{name: "freeze", step: "source: holding"},
	{name: "commit", step: "source: READY heard", waits: true},
	{name: "sent", step: "source: COMMIT sent", waits: true, moves: true},
	{name: "committed", step: "destination: COMMITTED written", waits: true, moves: true},
	{name: "push", step: "source: left", flags: append([]string{"--strategy", "post-copy"}, slowly...), waits: true, moves: true},
	{name: "pull", step: "destination: filling", flags: append([]string{"--strategy", "post-copy"}, slowly...), waits: true, moves: true},
	{name: "cleanup", step: "source: cleaning", waits: true, moves: true},
}

// underMove is one container that moves.
type underMove struct {
	phase
	was  map[string]string // nil: no counter
	done <-chan outcome
	said *outcome // once it has ended
}

// TestCableInEveryPhase: moves, each in another phase, have the destination's cable
// taken out. If it is in again soon all arrive. Otherwise those that were not
// committed are undone on both sides while it is out, and the others come to an end
// when it is in. Each time exactly one copy runs, with all that it had.
func TestCableInEveryPhase(t *testing.T) {
	w := newSteppedWorld(t, image.Busybox)
	c := counter(w.alpha.d.Tree.Tool("counter"))
	w.alpha.d.Load(t, c)
	for _, i := range []image.Image{image.Busybox, c} { // so that images do not travel
		w.beta.d.Load(t, i)
	}
	var all []*underMove
	for _, p := range phases {
		u := &underMove{phase: p}
		all = append(all, u)
		if p.name == "files" {
			w.d(w.alpha, p.name)
			w.alpha.exec(t, p.name, "sh", "-c", "head -c 5000000 /dev/urandom >/data; md5sum /data >/sum")
			continue
		}
		w.run(w.alpha, c, p.name)
	}
	for _, u := range all {
		if u.name != "files" {
			waitFor(t, migdReady, u.name+" answers", func() bool {
				var err error
				u.was, err = w.alpha.ask(t.Context(), u.name)
				return err == nil
			})
		}
	}
	t.Run("out and in", func(t *testing.T) {
		w.t = t
		w.cut(w.alpha, w.beta, all, func() {
			time.Sleep(2 * time.Second) // for so long it is out
		})
		for _, u := range all {
			w.ended(u)
			if u.begins && u.said.err != nil && strings.Contains(u.said.err.Error(), "(try again)") {
				w.whole(u, w.alpha, w.beta)
				w.mustMove(w.alpha, u.name, w.beta.IP)
			} else if u.said.err != nil || !u.said.report.Moved {
				t.Errorf("%s: %v", u.name, u.said.err)
			}
			w.whole(u, w.beta, w.alpha)
		}
		w.clean(w.alpha)
	})
	if t.Failed() {
		return
	}
	t.Run("out", func(t *testing.T) {
		w.t = t
		w.cut(w.beta, w.alpha, all, func() { w.outcomes(w.beta, w.alpha, all) })
		for _, u := range all {
			w.ended(u)
			if moved := u.said.err == nil; moved != u.moves {
				t.Errorf("%s: %v", u.name, u.said.err)
			}
			if u.moves {
				w.beta.d.Remove(u.name) // what the coordinator may not have removed
				w.whole(u, w.alpha, w.beta)
			} else {
				w.whole(u, w.beta, w.alpha)
			}
		}
	})
	w.t = t
	for _, u := range all {
		w.alpha.d.Remove(u.name)
		w.beta.d.Remove(u.name)
	}
	w.clean(w.alpha)
	w.clean(w.beta)
}

// cut begins all moves, has each come to its phase, and takes the cable out while
// meanwhile runs.
func (w *world) cut(from, to *host, all []*underMove, meanwhile func()) {
	w.t.Helper()
	var pids []int
	for _, u := range all[1:] {
		w.stopAt(hostOf(u.step, from, to), u.name, u.step)
		u.said, u.done = nil, from.start(append(u.flags, u.name, to.IP)...)
	}
	var flowing []int
	for _, u := range all[1:] {
		pid := w.stopped(hostOf(u.step, from, to), u.name, u.step)
		if u.flows {
			flowing = append(flowing, pid)
		} else {
			pids = append(pids, pid)
		}
	}
	answer := w.unanswered(from, to, func() { all[0].said, all[0].done = nil, from.start(all[0].name, to.IP) })

	for _, pid := range flowing {
		w.goOn(pid)
	}
	for _, u := range all {
		if u.flows {
			waitFor(w.t, settleWithin, u.name+" is under way", func() bool { return from.sent(w.t, u.name) > 0 })
		}
	}
	w.must(to.Disconnect())
	answer()
	for _, pid := range pids {
		w.goOn(pid)
	}
	meanwhile()
	w.must(to.Connect())
}

// unanswered begins a move to whose hello migd does not answer before the function
// that it returns is called.
func (w *world) unanswered(from, to *host, begin func()) (answer func()) {
	w.t.Helper()
	migd := to.migd.cmd.Process.Pid
	w.must(syscall.Kill(migd, syscall.SIGSTOP))
	before := from.connections(w.t, to)
	begin()
	waitFor(w.t, settleWithin, "a connection that nobody answers", func() bool { return from.connections(w.t, to) > before })
	return func() { w.must(syscall.Kill(migd, syscall.SIGCONT)) }
}

// outcomes waits, with the cable out, for what has to come to an end without it.
func (w *world) outcomes(from, to *host, all []*underMove) {
	w.t.Helper()
	begun := time.Now()
	for _, u := range all {
		if u.waits {
			continue
		}
		w.ended(u)
		if u.said.err == nil {
			w.t.Errorf("%s has moved without a network", u.name)
			continue
		}
		w.t.Logf("%s: after %.0f s: %v", u.name, time.Since(begun).Seconds(), u.said.err)
		if why := u.said.err.Error(); !strings.Contains(why, "connection timed out") && !strings.Contains(why, "move the container again") {
			w.t.Errorf("%s does not say that the network was cut", u.name)
		}
		w.whole(u, from, nil)
		waitFor(w.t, settleWithin, "nothing of "+u.name+" is left on "+to.Name, func() bool {
			return to.status(u.name) == "" && !strings.Contains(to.d.Must(w.t, "containers", "ls", "-q").Stdout, u.name)
		})
	}
	for _, u := range all {
		if n := w.running(u.name); n > 1 {
			w.t.Errorf("%d copies of %s run", n, u.name)
		}
	}
}

// ended waits for the coordinator.
func (w *world) ended(u *underMove) {
	w.t.Helper()
	if u.said != nil {
		return
	}
	select {
	case said := <-u.done:
		u.said = &said
	case <-time.After(2 * settleWithin):
		w.t.Fatalf("mig migrate %s does not end", u.name)
	}
}

// whole checks that a container runs on one host, as it was, and not on the
// other, if that is named.
func (w *world) whole(u *underMove, on, off *host) {
	w.t.Helper()
	if off != nil {
		waitFor(w.t, settleWithin, fmt.Sprintf("%s runs on %s alone", u.name, on.Name), func() bool {
			return on.status(u.name) == "RUNNING" && off.status(u.name) == ""
		})
	}
	if u.was == nil {
		if got := on.exec(w.t, u.name, "md5sum", "-c", "/sum"); !strings.Contains(got, "OK") {
			w.t.Errorf("a file of %s has changed: %s", u.name, got)
		}
		return
	}
	w.same(on, u.name, u.was)
	if off == nil {
		return
	}
	if n := w.running(u.name); n != 1 {
		w.t.Errorf("%d copies of %s run", n, u.name)
	}
}

// sent is how many bytes have left by the move of a container that runs.
func (h *host) sent(t *testing.T, id string) (n uint64) {
	t.Helper()
	out, err := h.Command(t.Context(), h.d.Tree.Bin("mig"), "status", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Container, Kind, Phase string
		Progress               struct{ Bytes uint64 }
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, r := range all {
		if r.Container == id && r.Kind == "checkpoint" && r.Phase == "running" {
			n = r.Progress.Bytes
		}
	}
	return n
}

// connections counts those of TCP that a host has with another's migd.
func (h *host) connections(t *testing.T, to *host) int {
	t.Helper()
	out, err := h.Command(t.Context(), "ss", "-Htn", "state", "established", "dst", to.IP, "dport", "=", ":7117").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(out), "\n")
}

// running counts the counters of a container that are at work, on all hosts: one
// that is frozen is not.
func (w *world) running(id string) (n int) {
	w.t.Helper()
	before := w.switches(id)
	time.Sleep(200 * time.Millisecond) // a counter sleeps and wakes thousands of times
	for pid, count := range w.switches(id) {
		if was, ok := before[pid]; ok && count > was {
			n++
		}
	}
	return n
}
