// SPDX-License-Identifier: Apache-2.0

package live

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// victim is who is killed at a step of a move.
type victim struct {
	name string
	// shimOf is "source" or "destination" for a shim, which takes its container along.
	shimOf string
	// engine: that of the step goes along, too.
	engine bool
	// cancels: the destination's part of the move ends with it, unless it has heard COMMIT.
	cancels bool
	// pid is the file with the victim's pid.
	pid func(on, off *host) string
	// know writes that file if nobody else does; the move has begun.
	know func(on, off *host, mig int) int
	// revive starts the victim again.
	revive func(w *world, on, off *host) error
}

// victims of the walk. An engine says which shim is its supervisor.
var victims = []victim{
	{name: "source's shim", shimOf: "source", pid: func(on, _ *host) string { return on.d.Engine() + ".supervisor" }},
	{name: "destination's shim", shimOf: "destination", cancels: true, pid: func(_, off *host) string { return off.d.Engine() + ".supervisor" }},
	{name: "destination's shim and the step's engine", shimOf: "destination", engine: true, cancels: true, pid: func(_, off *host) string { return off.d.Engine() + ".supervisor" }},
	{name: "mig", cancels: true, know: func(_, _ *host, mig int) int { return mig }},
	{
		name: "migd", cancels: true, know: func(_, off *host, _ int) int { return off.migd.cmd.Process.Pid },
		revive: func(w *world, _, off *host) error {
			if err := off.migd.stop(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
			off.migd = w.startMigd(off)
			return nil
		},
	},
	{
		name: "source's containerd", know: func(on, _ *host, _ int) int { return on.d.Pid() },
		revive: func(w *world, on, _ *host) error { return on.d.Restart(w.t.Context(), syscall.SIGKILL) },
	},
	{
		name: "destination's containerd", cancels: true, know: func(_, off *host, _ int) int { return off.d.Pid() },
		revive: func(w *world, _, off *host) error { return off.d.Restart(w.t.Context(), syscall.SIGKILL) },
	},
}

// walk is a container that is moved to and fro under deaths.
type walk struct {
	*world
	id      string
	was     map[string]string
	on, off *host
	// clients are how many of a third host have connections to it; 0: it has no network.
	clients int
	outside outsiders
	// turn counts moves: in every second one the clients are quiet.
	turn int
}

func newWalk(t *testing.T) *walk {
	t.Helper()
	return walkIn(newSteppedWorld(t))
}

// walkIn runs the container in a world whose engines are made for it.
func walkIn(w *world) *walk { return walkWith(w, 0) }

// walkWith is walkIn with so many clients on a third host.
func walkWith(w *world, clients int) *walk {
	k := &walk{id: "counter", world: w, clients: clients}
	k.restart()
	w.t.Cleanup(func() { _ = k.outside.leave() }) // their server may be gone by then
	return k
}

// restart runs the container anew, on alpha.
func (k *walk) restart() {
	k.t.Helper()
	_ = k.outside.leave() // whose server is gone
	k.on, k.off = k.alpha, k.beta
	if k.clients == 0 {
		k.was = k.startCounter(k.id)
		return
	}
	k.was = k.startCounterOutside(k.id)
	// Another container had the address, with another hardware address.
	k.must(k.client.Run("ip neigh flush dev eth0"))
	k.outside = k.outsidersOf(k.clients)
}

// served checks that the clients go on, behind a fault, and that others are served. Those
// of a copy that may have run and is lost have heard of its end.
func (k *walk) served(o *ordeal) {
	k.t.Helper()
	if o.lost {
		_ = k.outside.leave()
		k.outside = k.outsidersOf(k.clients)
	}
	k.outside.goOn(k.t)
	k.renew(&k.outside)
}

// flags are those of a move, and what its clients need.
func (k *walk) flags(flags ...string) []string {
	if k.clients > 0 {
		return append(flags, "--tcp", "keep")
	}
	return flags
}

// recorded moves the container, as flags say, and returns the steps of both engines.
func (k *walk) recorded(flags ...string) (steps []string) {
	k.t.Helper()
	k.order("record", k.on, k.off)
	k.mustMove(k.on, append(k.flags(flags...), k.id, k.off.IP)...)
	k.one(k.id, k.off, k.on)
	k.order("", k.on, k.off)
	for _, h := range []*host{k.on, k.off} {
		b, err := os.ReadFile(h.d.Engine() + ".steps")
		if err != nil {
			k.t.Fatal(err)
		}
		k.must(os.Remove(h.d.Engine() + ".steps"))
		for line := range strings.Lines(string(b)) {
			if step := strings.TrimSpace(line); !slices.Contains(steps, step) {
				steps = append(steps, step)
			}
		}
	}
	k.on, k.off = k.off, k.on
	return steps
}

// order tells the engines of hosts what to do next.
func (k *walk) order(what string, hosts ...*host) {
	k.t.Helper()
	for _, h := range hosts {
		for _, suffix := range []string{".met", ".orders", ".supervisor"} {
			if err := os.RemoveAll(h.d.Engine() + suffix); err != nil {
				k.t.Fatal(err)
			}
		}
		if what != "" {
			if err := os.WriteFile(h.d.Engine()+".orders", []byte(what), 0o600); err != nil {
				k.t.Fatal(err)
			}
		}
	}
}

// die moves the container, with a victim that dies at a step.
func (k *walk) die(step string, v victim) *ordeal {
	k.t.Helper()
	f := &fault{step: step, victim: &v}
	o := k.suffer(nil, f)
	if !f.met {
		k.t.Fatalf("nobody dies at %s; mig migrate says %v", step, o.err)
	}
	return o
}

// frozen: the kernel says so of a container's control group, of either version. For
// clients of containerd one that is merely being moved runs.
func (h *host) frozen(id string) bool {
	for _, dir := range h.Cgroups() {
		if filepath.Base(dir) != id {
			continue
		}
		v1, _ := os.ReadFile(filepath.Join(dir, "freezer.state"))
		v2, _ := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if strings.TrimSpace(string(v1)) == "FROZEN" || strings.Contains(string(v2), "frozen 1") {
			return true
		}
	}
	return false
}

func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// sent is the step behind which the source alone can no longer decide: the copy is the
// container if the destination has heard COMMIT before anybody ended its part.
const sent = "source: COMMIT sent"

// decided are the steps behind which the copy is the container, whoever dies.
var decided = []string{
	sent, "source: RUNNING heard", "source: MOVED written", "source: decided", "source: cleaning", "source: done",
	"destination: COMMITTED written", "destination: running", "destination: let go", "destination: RUNNING written",
	"destination: RUNNING sent", "destination: done",
}

// lost is the one step at which nobody can tell whether the copy ran, if its engine
// dies there.
const lost = "destination: COMMITTED written"

// messages are the steps at which hosts tell each other something or write down what
// they were told, and the one at which the copy starts.
var messages = []string{
	"source: manifest sent", "destination: manifest read", "destination: PREPARED sent", "source: PREPARED heard",
	"destination: READY sent", "source: READY heard", "source: COMMITTED written", sent,
	"destination: COMMIT heard", lost, "destination: let go", "destination: RUNNING written", "destination: RUNNING sent",
	"source: RUNNING heard", "source: MOVED written",
}

// TestDeathWalk kills each of the processes that take part in a move at each of
// its steps, exactly there. One copy runs afterwards, or, with the shim of the only
// one, none; nothing is left, and the next move is one of the same id. Without
// MIG_SOAK at every message, and not in between.
func TestDeathWalk(t *testing.T) { newWalk(t).deaths(messages) }

// TestDeathWalkWithClients is TestDeathWalk of a container that has clients on a third
// host. As long as a copy runs, they go on talking to it. Without MIG_SOAK at the steps
// around which their connections change hosts.
func TestDeathWalkWithClients(t *testing.T) {
	walkWith(newSteppedWorld(t), 3).deaths([]string{sent, "destination: COMMIT heard", lost, "destination: let go"})
}

// deaths kills every victim at steps, or, with MIG_SOAK, at all that there are.
func (k *walk) deaths(at []string) {
	t := k.t
	t.Helper()
	steps := k.recorded()
	t.Logf("%d steps: %s", len(steps), strings.Join(steps, ", "))
	for _, must := range append(slices.Clone(messages), decided...) {
		if !slices.Contains(steps, must) {
			t.Errorf("no step is called %q", must)
		}
	}
	all := os.Getenv("MIG_SOAK") != ""
	deaths := 0
	for _, step := range steps {
		if !all && !slices.Contains(at, step) {
			continue
		}
		for _, v := range victims {
			if t.Failed() {
				return
			}
			k.check(step, v)
			deaths++
		}
	}
	t.Logf("%d deaths", deaths)
	k.mustMove(k.on, append(k.flags(), k.id, k.off.IP)...)
	k.one(k.id, k.off, k.on)
	k.same(k.off, k.id, k.was)
	k.outside.goOn(t)
}

// TestDeathBehindTheSwitch: the engine of a copy that runs dies, which its shim has to
// tell from the copy's own end, and so have migd, started anew, and one whose containerd
// has died. The copy stays.
func TestDeathBehindTheSwitch(t *testing.T) {
	k := newWalk(t)
	for _, v := range victims {
		if v.name != "migd" && v.name != "destination's containerd" {
			continue
		}
		v.name += " and the step's engine"
		v.engine = true
		for _, step := range []string{"destination: let go", "destination: RUNNING written", "destination: RUNNING sent", "destination: done"} {
			if t.Failed() {
				return
			}
			from := k.on
			if k.check(step, v); k.on == from {
				t.Errorf("%s: the %s died, and the container is where it was", step, v.name)
			}
		}
	}
}

// TestClientsOfAnOrphan: the engine of the source dies behind COMMIT, and its shim ends the
// original when the copy is known to run. Nobody tells the clients, who say nothing.
func TestClientsOfAnOrphan(t *testing.T) {
	k := walkWith(newSteppedWorld(t), 3)
	engine := victim{name: theEngine, engine: true}
	for range 4 {
		from := k.on
		if k.check(sent, engine); k.on == from || t.Failed() {
			t.Fatal("the container has not moved")
		}
	}
}

// check is one death and what is left of it.
func (k *walk) check(step string, v victim) {
	k.t.Helper()
	d := k.die(step, v)
	moved := d.report != nil && d.report.Moved
	k.t.Logf("%s: the %s dies: moved: %v; mig migrate says %v", step, v.name, moved, d.err)
	from, to := k.on, k.off
	var on, off *host
	switch v.shimOf {
	case "source":
		on, off = k.survivor(k.id, from), from
	case "destination":
		on, off = k.survivor(k.id, to), to
	default:
		on, off = k.settled(k.id)
	}
	k.outcome(step, v, d, on, from)
	k.message(d, on, from)
	if on == nil {
		k.remove(k.id)
		k.restart()
		return
	}
	k.same(on, k.id, k.was)
	k.served(d)
	off.d.Remove(k.id) // the record, which nobody was there to remove
	k.clean(off, "lease mig-")
	k.on, k.off = on, off
}

// outcome checks that what runs, on a host or nowhere (nil), is what the step
// and the victim have to lead to.
func (k *walk) outcome(step string, v victim, d *ordeal, on, from *host) {
	k.t.Helper()
	moved := d.report != nil && d.report.Moved
	past := slices.Contains(decided, step) && (step != sent || !v.cancels)
	switch {
	case d.lost != (v.engine && step == lost) && v.shimOf != "destination", v.engine && step == lost && !d.lost:
		k.t.Errorf("in doubt whether the copy ran: %v", d.lost)
	case d.lost && on != from:
		k.t.Error("the source was freed by force, and does not run")
	case on == nil && v.shimOf == "source" && past:
		k.t.Error("the copy was the container, and is gone with the source's shim")
	case v.shimOf == "destination" && !slices.Contains(decided, step) && on != from:
		k.t.Error("the copy was let go, or the original ended, though the destination's shim had died before COMMIT was written down")
	case on == nil && (v.shimOf == "source") == moved:
		k.t.Errorf("nothing runs; moved: %v", moved)
	case on == from && past && v.shimOf != "destination":
		k.t.Error("the copy was the container, and the original runs")
	case on != nil && d.report != nil && moved != (on != from):
		k.t.Errorf("it runs on %s; moved: %v", on.Name, moved)
	}
}

// message checks that mig migrate says what happened.
func (k *walk) message(d *ordeal, on, from *host) {
	k.t.Helper()
	says := fmt.Sprint(d.err)
	want := ""
	switch {
	case d.died("mig"):
		return
	case d.report == nil:
		want = "a report"
	case d.lost:
		want = "freed by force"
	case !d.report.Moved && d.err == nil:
		want = "an error"
	case !d.report.Moved && on == nil:
		want = "does not run here any more"
	case !d.report.Moved:
		want = "was not moved"
	case d.err != nil:
		want = " runs on "
	}
	if !strings.Contains(says, want) {
		k.t.Errorf("mig migrate says %s, want %q", says, want)
	}
}
