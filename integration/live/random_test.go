// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// TestRandomWalk moves a container to and fro under faults that are drawn: who dies at
// which step, at which step the cable is taken out and for how long, two of those or
// none, by which strategy. After each exactly one copy runs (none where a shim or what
// the copy lacked has taken it along), with all of its memory, nothing is left on
// either host, mig migrate has said what happened, and the next move is one of the same
// id. MIG_WALK=1h for so long; otherwise it is some seconds, in which no cable is out
// until the end. MIG_SEED draws the same again. The hosts are new after some moves, and
// every second time the first one has a containerd 1.6.
func TestRandomWalk(t *testing.T) {
	within, long := walkTime(t)
	seed := walkSeed(t)
	end := time.Now().Add(within)
	tally := &tally{}
	for n, failed := seed, 0; failed < failuresOfWalk && time.Now().Before(end); n++ {
		if !t.Run(fmt.Sprintf("MIG_SEED=%d", n), func(t *testing.T) {
			version := daemon.V24
			if n%2 == 1 {
				version = daemon.V16
			}
			r := &randomWalk{walk: walkWith(newSteppedWorldOf(t, version), int(n/2%2)*3), rand: rand.New(rand.NewPCG(n, 0)), long: long, tally: tally}
			r.run(end)
		}) {
			failed++
		}
	}
	t.Logf("within %s, from MIG_SEED=%d:\n%s", within, seed, tally)
}

// TestDeathWhileMemoryIsBehind: a copy that runs without all of its memory is lost with
// who has the rest or fetches it. A source whose shim has died is gone then, with its
// control group; another one stays frozen until a person kills it, as mig migrate tells.
func TestDeathWhileMemoryIsBehind(t *testing.T) {
	r := &randomWalk{walk: walkIn(newSteppedWorld(t)), tally: &tally{}}
	_, r.descriptors = r.program()
	for _, f := range []*fault{
		{step: "source: left", victim: &victims[0]},
		{step: "destination: filling", victim: &mortals[len(mortals)-1]},
	} {
		r.check("post-copy", slowly, f)
		if row := r.tally.rows[f.kind()]; !f.met || row.gone != 1 || (row.bereft == 1) != (f.victim.name == theEngine) {
			t.Errorf("%v: %+v", f, row)
		}
	}
}

// walkTime is how long a random walk takes, and whether that is long.
func walkTime(t *testing.T) (within time.Duration, long bool) {
	t.Helper()
	text := os.Getenv("MIG_WALK")
	if text == "" {
		return 20 * time.Second, false
	}
	within, err := time.ParseDuration(text)
	if err != nil || within <= 0 {
		t.Fatalf("MIG_WALK=%q: want a time, such as 1h", text)
	}
	return within, true
}

func walkSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("MIG_SEED")
	if text == "" {
		return rand.Uint64N(1_000_000)
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("MIG_SEED=%q: want a number", text)
	}
	return seed
}

// movesOfWorld is how often a container moves before the hosts are new.
const movesOfWorld = 60

// failuresOfWalk is how many worlds may fail, each once, before a walk ends.
const failuresOfWalk = 10

// randomWalk is a walk whose faults are drawn.
type randomWalk struct {
	*walk
	rand  *rand.Rand
	long  bool
	tally *tally
	// steps of each strategy that a move has which is not disturbed.
	steps map[string][]string
	// descriptors of the container's program when it has just begun.
	descriptors int
}

func (r *randomWalk) run(end time.Time) {
	r.steps = map[string][]string{}
	for _, s := range strategies {
		r.steps[s] = r.recorded("--strategy", s)
		slices.Sort(r.steps[s]) // the two hosts' are not always in the same order
	}
	r.home()
	before := r.footprints()
	_, r.descriptors = r.program()
	moves := 0
	for ; moves < movesOfWorld && time.Now().Before(end) && !r.t.Failed(); moves++ {
		strategy, flags, faults := r.draw()
		r.check(strategy, flags, faults...)
	}
	if !r.t.Failed() {
		r.home()
		r.grown(moves, before, r.footprints())
	}
}

// home has the container run on alpha, and nothing of it on beta.
func (r *randomWalk) home() {
	r.t.Helper()
	if r.on != r.alpha {
		r.mustMove(r.on, append(r.flags(), r.id, r.off.IP)...)
		r.on, r.off = r.off, r.on
	}
	r.same(r.on, r.id, r.was)
	r.clean(r.off, "lease mig-")
}

// check is one move under faults, and what is left of it.
func (r *randomWalk) check(strategy string, flags []string, faults ...*fault) {
	r.t.Helper()
	begun := time.Now()
	o := r.suffer(append([]string{"--strategy", strategy}, flags...), faults...)
	if o.report == nil && !o.died("mig") {
		r.t.Errorf("mig migrate writes no report, and says %v", o.err)
	}
	var dead []*host
	if o.shimDied("source") {
		dead = append(dead, o.from)
	}
	if o.shimDied("destination") {
		dead = append(dead, o.to)
	}
	behind := leavesBehind(strategy) || o.bereft
	on := r.rest(r.id, len(dead) > 0 || behind && len(faults) > 0, dead...)
	how := r.tally.count(o, on)
	r.t.Logf("%s -> %s, %s %v, %v: %s within %.1f s; mig migrate says %v", o.from.Name, o.to.Name, strategy, flags, faults, how, time.Since(begun).Seconds(), o.err)
	r.consistent(o, on, behind)
	r.message(o, on, o.from)
	if !o.cut.IsZero() {
		r.reachable(o.from, o.to)
		r.reachable(o.to, o.from)
	}
	if on == nil {
		r.remove(r.id)
		r.restart()
		_, r.descriptors = r.program()
		return
	}
	r.on, r.off = on, r.other(on)
	r.same(on, r.id, r.was)
	r.served(o)
	r.off.d.Remove(r.id) // the record, which nobody was there to remove
	r.clean(r.off, "lease mig-")
	r.untouched()
}

// leavesBehind: the copy may run before it has its memory.
func leavesBehind(strategy string) bool { return strategy == "post-copy" || strategy == "hybrid" }

// consistent checks that what runs is what the faults may lead to, and what mig migrate
// has reported.
func (r *randomWalk) consistent(o *ordeal, on *host, behind bool) {
	r.t.Helper()
	moved := o.report != nil && o.report.Moved
	switch {
	case o.report != nil && on != nil && moved != (on == o.to):
		r.t.Errorf("it runs on %s; moved: %v", on.Name, moved)
	case o.lost && on != o.from:
		r.t.Error("the source was freed by force, and does not run")
	case o.bereft && on != nil:
		r.t.Error("what was left of the source was killed, and something runs")
	case len(o.faults) == 0 && (o.err != nil || !moved):
		r.t.Errorf("undisturbed: moved: %v", moved)
	case len(o.faults) == 1 && o.faults[0].met:
		r.alone(o, o.faults[0], on, behind)
	}
}

// alone is consistent for one fault.
func (r *randomWalk) alone(o *ordeal, f *fault, on *host, behind bool) {
	r.t.Helper()
	moved := o.report != nil && o.report.Moved
	switch {
	case f.victim == nil && f.out > 0:
		// A move whose very beginning was held up may be undone at its end.
		if !moved && !strings.Contains(fmt.Sprint(o.err), "(try again)") {
			r.t.Error("the cable was in again soon, and the container was not moved")
		}
	case f.victim == nil:
		if slices.Contains(decided, f.step) && !moved {
			r.t.Error("the copy was the container, and does not run")
		}
	case f.victim.name == theEngine:
		if on == nil && !behind {
			r.t.Error("nothing runs, and no shim died")
		}
	case !behind:
		r.outcome(f.step, *f.victim, o, on, o.from)
	}
}

// untouched checks that the moves have left nothing in the container's program.
func (r *randomWalk) untouched() {
	r.t.Helper()
	tracer, descriptors := r.program()
	if tracer != "0" {
		r.t.Errorf("the program has the tracer %s", tracer)
	}
	const slack = 4 // its connections to itself come and go
	if descriptors > r.descriptors+slack {
		r.t.Errorf("the program has %d descriptors, it had %d", descriptors, r.descriptors)
	}
}

// program is what the kernel says of the container's program: who traces it, and how
// many descriptors it has.
func (r *randomWalk) program() (tracer string, descriptors int) {
	r.t.Helper()
	pids := r.processes()
	if len(pids) != 1 {
		r.t.Fatalf("%d copies: %v", len(pids), pids)
	}
	dir := filepath.Join("/proc", pids[0])
	list, err := os.ReadDir(filepath.Join(dir, "fd"))
	r.must(err)
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	r.must(err)
	_, rest, _ := strings.Cut(string(status), "\nTracerPid:\t")
	tracer, _, _ = strings.Cut(rest, "\n")
	return tracer, len(list)
}
