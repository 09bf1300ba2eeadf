// SPDX-License-Identifier: Apache-2.0

package live

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// strategies that are drawn.
var strategies = []string{"auto", "stop-and-copy", "pre-copy", "post-copy", "hybrid"}

// theEngine dies alone.
const theEngine = "step's engine"

// mortals are the victims of the walk, and the engine without its shim.
var mortals = append(slices.Clone(victims), victim{name: theEngine, engine: true})

// kinds of faults of one move, each with how often it is drawn, of all of them.
var kinds = []struct {
	often int
	draw  func(r *randomWalk, steps []string) []*fault
}{
	{2, func(*randomWalk, []string) []*fault { return nil }},
	{8, func(r *randomWalk, steps []string) []*fault { return []*fault{r.death(steps)} }},
	{4, func(r *randomWalk, steps []string) []*fault { return []*fault{r.cable(steps, false)} }},
	{1, func(r *randomWalk, steps []string) []*fault { return []*fault{r.cable(steps, r.long)} }},
	{3, func(r *randomWalk, steps []string) []*fault { return r.deaths(steps) }},
	{2, func(r *randomWalk, steps []string) []*fault { return []*fault{r.death(steps), r.cable(steps, false)} }},
}

// draw draws the next move.
func (r *randomWalk) draw() (strategy string, flags []string, faults []*fault) {
	strategy = strategies[r.rand.IntN(len(strategies))]
	if r.rand.IntN(3) == 0 {
		flags = []string{"--bandwidth", "8MB", "--compress", "none"} // about a second for all memory
	}
	all := 0
	for _, k := range kinds {
		all += k.often
	}
	at := r.rand.IntN(all)
	for _, k := range kinds {
		if at -= k.often; at < 0 {
			return strategy, flags, k.draw(r, r.steps[strategy])
		}
	}
	return strategy, flags, nil
}

// death draws who dies at which of the steps.
func (r *randomWalk) death(steps []string) *fault {
	return &fault{step: steps[r.rand.IntN(len(steps))], victim: &mortals[r.rand.IntN(len(mortals))]}
}

// deaths draws two of them, of two processes. A containerd comes before the migd that
// looks for it.
func (r *randomWalk) deaths(steps []string) []*fault {
	for {
		a, b := r.death(steps), r.death(steps)
		if a.victim == b.victim || a.victim.shimOf != "" && a.victim.shimOf == b.victim.shimOf {
			continue
		}
		if a.victim.name == "migd" {
			a, b = b, a
		}
		return []*fault{a, b}
	}
}

// cable draws where the cable is taken out, at the step or some time after it, and for
// how long.
func (r *randomWalk) cable(steps []string, long bool) *fault {
	f := &fault{step: hello}
	if n := r.rand.IntN(len(steps) + 1); n < len(steps) {
		f.step = steps[n]
		f.after = time.Duration(r.rand.IntN(2)*r.rand.IntN(300)) * time.Millisecond
	}
	if !long {
		f.out = time.Duration(50+r.rand.IntN(2000)) * time.Millisecond
	}
	return f
}

// kind names the faults of a move for the table.
func (o *ordeal) kind() string {
	switch f := o.faults; {
	case len(f) == 0:
		return "none"
	case len(f) == 1:
		return f[0].kind()
	case f[0].victim != nil && f[1].victim != nil:
		return "two deaths"
	}
	return "a death, and the cable out for at most 2 s"
}

func (f *fault) kind() string {
	switch {
	case f.victim != nil:
		return f.victim.name + " dies"
	case f.out == 0:
		return "the cable out until the end, or for 40 s"
	}
	return "the cable out for at most 2 s"
}

// tally counts moves by their faults.
type tally struct {
	rows  map[string]*row
	steps map[string]bool // that faults have met
}

// row counts how moves have ended, see count.
type row struct{ moves, met, unmet, arrived, stayed, gone, lost, bereft int }

// count counts a move after which the container runs on a host, or nowhere (nil), and
// says how it has ended.
func (a *tally) count(o *ordeal, on *host) (how string) {
	if a.rows == nil {
		a.rows, a.steps = map[string]*row{}, map[string]bool{}
	}
	w := a.rows[o.kind()]
	if w == nil {
		w = &row{}
		a.rows[o.kind()] = w
	}
	w.moves++
	for _, f := range o.faults {
		if f.met {
			w.met++
			a.steps[f.step] = true
		} else {
			w.unmet++
		}
	}
	switch on {
	case nil:
		w.gone++
		how = "runs nowhere"
	case o.from:
		w.stayed++
		how = "stayed"
	default:
		w.arrived++
		how = "arrived"
	}
	if o.lost {
		w.lost++
		how += ", freed by force"
	}
	if o.bereft {
		w.bereft++
		how += ", the rest of the source killed"
	}
	return how
}

// String is the table.
func (a *tally) String() string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "moves\tfaults met\tnot met\tarrived\tstayed\tran nowhere\tfreed by force\trest killed\t  faults")
	var all row
	for _, kind := range sortedBy(a.rows) {
		w := a.rows[kind]
		fmt.Fprintf(t, "%s  %s\n", w, kind)
		all = row{all.moves + w.moves, all.met + w.met, all.unmet + w.unmet, all.arrived + w.arrived, all.stayed + w.stayed, all.gone + w.gone, all.lost + w.lost, all.bereft + w.bereft}
	}
	fmt.Fprintf(t, "%s  all, at %d different steps\n", &all, len(a.steps))
	_ = t.Flush()
	return b.String()
}

func (w *row) String() string {
	return fmt.Sprintf("%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t", w.moves, w.met, w.unmet, w.arrived, w.stayed, w.gone, w.lost, w.bereft)
}

// sortedBy has the kinds with the most moves first.
func sortedBy(rows map[string]*row) []string {
	var names []string
	for name := range rows {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(rows[b].moves-rows[a].moves, strings.Compare(a, b)) })
	return names
}
