// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
}

func newWalk(t *testing.T) *walk {
	t.Helper()
	k := &walk{id: "counter", world: newSteppedWorld(t)}
	k.restart()
	return k
}

// restart runs the container anew, on alpha.
func (k *walk) restart() { k.was, k.on, k.off = k.startCounter(k.id), k.alpha, k.beta }

// recorded moves the container and returns the steps of both engines.
func (k *walk) recorded() (steps []string) {
	k.t.Helper()
	k.order("record", k.on, k.off)
	k.mustMove(k.on, k.id, k.off.IP)
	k.one(k.id, k.off, k.on)
	k.order("", k.on, k.off)
	for _, h := range []*host{k.on, k.off} {
		b, err := os.ReadFile(h.d.Engine() + ".steps")
		if err != nil {
			k.t.Fatal(err)
		}
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

// death is a move in which somebody dies, and what mig migrate says.
type death struct {
	report *report // nil: mig did not live to write one
	err    error
	// lost: nobody can tell whether the copy ran, and the source was freed by force.
	lost bool
}

// die moves the container, with a victim that dies at a step.
func (k *walk) die(step string, v victim) death {
	k.t.Helper()
	at := hostOf(step, k.on, k.off)
	file := filepath.Join(k.t.TempDir(), "pid")
	if v.pid != nil {
		file = v.pid(k.on, k.off)
	}
	orders := step + "\t" + file
	if v.engine {
		orders += "\n" + step + "\tengine"
	}
	k.order("", k.on, k.off)
	k.order(orders, at)
	token := newToken()
	var out bytes.Buffer
	errs := newTextFile(k.t)
	cmd := k.on.migrate(context.Background(), "--token", token, k.id, k.off.IP)
	cmd.Stdout, cmd.Stderr = &out, errs
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if v.know != nil {
		pid := strconv.Itoa(v.know(k.on, k.off, cmd.Process.Pid))
		if err := errors.Join(os.WriteFile(file+".part", []byte(pid), 0o600), os.Rename(file+".part", file)); err != nil {
			k.t.Fatal(err)
		}
	}
	var d death
	over := false
	met := func() bool {
		_, err := os.Stat(at.d.Engine() + ".met")
		return err == nil
	}
	waitFor(k.t, settleWithin, "it dies at "+step, func() bool {
		select {
		case d.err = <-done:
			over = true
		default:
		}
		return met() || over
	})
	if !met() {
		waitFor(k.t, settleWithin, fmt.Sprintf("it dies at %s; mig migrate is over: %v, %s", step, d.err, errs), met)
	}
	if v.revive != nil {
		if err := v.revive(k.world, k.on, k.off); err != nil {
			k.t.Fatal(err)
		}
	}
	waitFor(k.t, settleWithin, "mig migrate ends", func() bool {
		select {
		case d.err = <-done:
			over = true
		default:
		}
		if !over && !d.lost && k.isLost(token) {
			d.lost = true
			k.force(token, errs)
		}
		return over
	})
	k.order("", k.on, k.off)
	if d.report = (&report{}); json.Unmarshal(out.Bytes(), d.report) != nil {
		d.report = nil
	}
	if d.err != nil {
		d.err = fmt.Errorf("%w: %s", d.err, strings.TrimSpace(errs.String()))
	}
	return d
}

// isLost: the destination answers that the copy may have run and is gone.
func (k *walk) isLost(token string) bool {
	b, _ := os.ReadFile(k.off.Path("/run/mig/journal/" + token + ".destination"))
	return strings.Contains(string(b), `"LOST"`)
}

// textFile takes what a program writes, for a reader who does not wait for its end.
type textFile struct{ *os.File }

func newTextFile(t *testing.T) textFile {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return textFile{f}
}

func (f textFile) String() string {
	b, _ := os.ReadFile(f.Name())
	return string(b)
}

// force frees a source that is in doubt, after it was seen to be frozen, and who
// waits for it was told.
func (k *walk) force(token string, told textFile) {
	k.t.Helper()
	waitFor(k.t, settleWithin, "mig migrate says that it is in doubt", func() bool {
		text := told.String()
		return strings.Contains(text, "in doubt") && strings.Contains(text, "LOST") && strings.Contains(text, "mig abort --force "+token)
	})
	waitFor(k.t, settleWithin, "the copy is gone, and the source frozen", func() bool { return len(k.processes()) == 1 && k.on.frozen(k.id) })
	if st := k.on.status(k.id); st != "PAUSED" {
		k.t.Errorf("in doubt, and frozen, it is %s", st)
	}
	if said := k.on.d.Ctr(k.t.Context(), "tasks", "resume", k.id); said.Code == 0 || !strings.Contains(said.Stderr, "in doubt") {
		k.t.Errorf("ctr resumes it: %+v", said)
	}
	mig := k.on.d.Tree.Bin("mig")
	out, err := k.on.Command(k.t.Context(), mig, "status").CombinedOutput()
	if err != nil {
		k.t.Errorf("mig status: %v: %s", err, out)
	}
	if !strings.Contains(string(out), "in doubt") {
		k.t.Errorf("mig status says %s", out)
	}
	out, err = k.on.Command(k.t.Context(), mig, "abort", "--force", token).CombinedOutput()
	if err != nil {
		k.t.Errorf("mig abort --force: %v: %s", err, out)
	}
	k.t.Logf("mig abort --force says %s", out)
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
func TestDeathWalk(t *testing.T) {
	k := newWalk(t)
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
		if !all && !slices.Contains(messages, step) {
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
	k.mustMove(k.on, k.id, k.off.IP)
	k.one(k.id, k.off, k.on)
	k.same(k.off, k.id, k.was)
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
	k.message(v, d, on, from)
	if on == nil {
		k.remove(k.id)
		k.restart()
		return
	}
	k.same(on, k.id, k.was)
	off.d.Remove(k.id) // the record, which nobody was there to remove
	k.clean(off, "lease mig-")
	k.on, k.off = on, off
}

// outcome checks that what runs, on a host or nowhere (nil), is what the step
// and the victim have to lead to.
func (k *walk) outcome(step string, v victim, d death, on, from *host) {
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
func (k *walk) message(v victim, d death, on, from *host) {
	k.t.Helper()
	says := fmt.Sprint(d.err)
	want := ""
	switch {
	case v.name == "mig":
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
