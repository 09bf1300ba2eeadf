// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// setups are the events into which every misbehaviour is injected.
var setups = []struct {
	name  string
	make  func(w *world) (export ExportOptions)
	dest  bool
	tasks int
}{
	{name: "leave", tasks: 2, make: func(w *world) ExportOptions {
		return ExportOptions{Leave: true, Quiesce: w.quiesce, Wake: w.wake}
	}},
	{name: "exit", tasks: 2, make: func(*world) ExportOptions { return ExportOptions{} }},
	{name: "move", tasks: 3, make: func(w *world) ExportOptions {
		w.appear[2] = 9
		return ExportOptions{Strategy: PreCopy, Switch: commitOf(w), Quiesce: w.quiesce, Wake: w.wake}
	}},
	{name: "post-copy", tasks: 2, make: func(w *world) ExportOptions {
		return ExportOptions{Strategy: PostCopy, Switch: commitOf(w)}
	}},
	{name: "import", tasks: 2, dest: true, make: func(*world) ExportOptions { return ExportOptions{} }},
	{name: "import post-copy", tasks: 2, dest: true, make: func(*world) ExportOptions { return ExportOptions{Strategy: PostCopy} }},
}

func commitOf(w *world) func(context.Context) (Verdict, error) {
	return func(ctx context.Context) (Verdict, error) {
		if err := w.call(ctx, "switch", func() error { w.committed = true; return nil }); err != nil {
			return VerdictAbort, err
		}
		return VerdictCommit, nil
	}
}

type outcome struct {
	w     *world
	res   Result
	err   error
	took  time.Duration
	calls int
}

// play runs one of the setups with what is to be injected, in a synctest
// bubble of the caller.
func play(i, workers int, hurts ...*hurt) outcome {
	s := setups[i]
	var ids []record.ProcessID
	for id := range s.tasks {
		ids = append(ids, record.ProcessID(id+1))
	}
	w := newWorld(ids...)
	subs := []Subsystem{
		&fakeSubsystem{w: w, name: "cpu", steps: 1, shared: 1},
		&fakeSubsystem{w: w, name: "rootfs", shared: 2, aside: true, alone: true},
		&fakeSubsystem{w: w, name: "memory", steps: 3, left: 2, remaining: 64, concurrent: true},
	}
	o := s.make(w)
	o.Container, o.Medium, o.Subsystems = w, w, subs
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	w.quit = cancel
	begun := time.Now()
	out := outcome{w: w}
	tune := Tuning{Workers: workers}
	if s.dest {
		if _, err := Export(ctx, o); err != nil {
			out.err = fmt.Errorf("the test's own export: %w", err)
			return out
		}
		w.reset()
		w.hurts = hurts
		ready := func(ctx context.Context) error { return w.call(ctx, "ready", nil) }
		tell := func(ctx context.Context) error { return w.call(ctx, "tell", nil) }
		manifest := func(ctx context.Context) ([]string, error) {
			return []string{"cpu", "rootfs", "memory"}, w.call(ctx, "manifest", nil)
		}
		out.res, out.err = Import(ctx, ImportOptions{
			Tuning: tune, Container: w, Medium: w, Subsystems: subs, Ready: ready, Running: tell, Manifest: manifest,
		})
	} else {
		w.hurts = hurts
		o.Tuning = tune
		out.res, out.err = Export(ctx, o)
	}
	out.took = time.Since(begun)
	w.mu.Lock()
	out.calls = w.calls
	w.mu.Unlock()
	return out
}

// TestEveryCall injects each kind of misbehaviour at each call of each event in
// turn. Whatever happens, there is one copy and the error says where it is.
func TestEveryCall(t *testing.T) {
	for i, s := range setups {
		for _, workers := range []int{1, 4} {
			var n int
			synctest.Test(t, func(t *testing.T) {
				o := play(i, workers)
				if o.err != nil || o.res.State != StateDone {
					t.Fatalf("%s: unhurt, yet %s: %v", s.name, o.res.State, o.err)
				}
				n = o.calls
			})
			kinds := []string{"error", "panic", "cancel", "stall", "deaf"}
			if workers > 1 {
				kinds = []string{"error", "stall", "deaf"}
			}
			for _, kind := range kinds {
				t.Run(fmt.Sprintf("%s/%d/%s", s.name, workers, kind), func(t *testing.T) {
					for at := range n {
						synctest.Test(t, func(t *testing.T) {
							o := play(i, workers, &hurt{kind: kind, at: at})
							if problem := judge(s.dest, o); problem != "" {
								t.Errorf("%s at call %d: %s\nerror: %v\ntruth: %s\ntrace: %q", kind, at, problem, o.err, o.w.truth(), o.w.trace)
							}
							close(o.w.over)
							synctest.Wait()
						})
					}
				})
			}
		}
	}
}

// TestTwoCalls fails a second call after the first: the undoing is hurt, too.
// Undoing takes few calls, so that the second is one of the next twelve.
func TestTwoCalls(t *testing.T) {
	for i, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			n := 0
			synctest.Test(t, func(*testing.T) { n = play(i, 1).calls })
			for a := range n {
				synctest.Test(t, func(t *testing.T) {
					for b := a + 1; b <= a+12; b++ {
						o := play(i, 1, &hurt{kind: "error", at: a}, &hurt{kind: "error", at: b})
						if problem := judge(s.dest, o); problem != "" {
							t.Errorf("errors at calls %d and %d: %s\nerror: %v\ntruth: %s\ntrace: %q", a, b, problem, o.err, o.w.truth(), o.w.trace)
						}
					}
				})
			}
		})
	}
}

// judge compares the truth with what the event says about itself.
func judge(dest bool, o outcome) string {
	w := o.w
	w.mu.Lock()
	defer w.mu.Unlock()
	count := map[taskState]int{}
	for _, s := range w.tasks {
		count[s]++
	}
	all := len(w.tasks)
	var e *Error
	var stuck *StuckError
	switch {
	case len(w.violations) > 0:
		return w.violations[0]
	case o.err != nil && !errors.As(o.err, &e):
		return "the failure is no *Error"
	case (o.err == nil) != (o.res.State == StateDone):
		return fmt.Sprintf("state %s and error %v do not match", o.res.State, o.err)
	case w.closed != 1 && !hurtAt(w, "close"):
		return fmt.Sprintf("the medium was closed %d times", w.closed)
	case o.took > 3*time.Minute:
		return fmt.Sprintf("it took %s", o.took)
	case errors.As(o.err, &stuck) != anyHurt(w, "deaf"):
		// A deaf call that is not reported would leave its engine alive.
		if o.err == nil && dest && strings.Contains(strings.Join(o.res.Warnings, ""), "has not returned") {
			return "" // after the copy ran: worth a warning, no failure
		}
		if o.err == nil {
			return "a call never returned and nobody was told"
		}
		if !anyHurt(w, "deaf") {
			return "a call is said to be stuck and none was"
		}
		return "a stuck call is not in the error"
	}
	if dest {
		return judgeImport(o, count, all)
	}
	return judgeExport(o, count, all)
}

func judgeExport(o outcome, count map[taskState]int, all int) string {
	w := o.w
	free := count[running] == all && !w.frozen && !w.sealed
	if free && w.resting && !hurtAt(w, "wake") && !anyHurt(w, "deaf") {
		return "the tasks run, and their application still rests"
	}
	switch o.res.State {
	case StateDone:
		if w.flushed != len(w.pushed) {
			return "done, but not all records are safe"
		}
		if !free && count[ended] != all {
			return "done, but the tasks neither run nor have ended"
		}
		if free && w.committed {
			return "done, and the tasks run beside their copy"
		}
	case StateRolledBack:
		if !free {
			return "rolled back, but not every task runs"
		}
		if w.committed {
			return "rolled back after the decision"
		}
	case StateHeld:
		if free {
			return "held, but the tasks run"
		}
	case StateFailed:
		if !anyHurt(w, "deaf") && len(w.hurts) < 2 && !hurtAt(w, "restart") && !hurtAt(w, "release") && !hurtAt(w, "close") && !hurtAt(w, "wake") {
			return "failed, though nothing hindered the undoing"
		}
	default:
		return "not a final state of an export: " + o.res.State.String()
	}
	return ""
}

func judgeImport(o outcome, count map[taskState]int, all int) string {
	w := o.w
	none := count[running] == 0 && count[heldNow] == 0
	switch o.res.State {
	case StateDone, StateHeld:
		if count[running] != all {
			return o.res.State.String() + ", but not every task runs"
		}
	case StateCleaned:
		if !none {
			return "cleaned, but something is left"
		}
		var e *Error
		if errors.As(o.err, &e); w.ran && !e.Ran {
			return "a task has run and the error does not say so"
		}
	case StateFailed:
		if !anyHurt(w, "deaf") && len(w.hurts) < 2 {
			return "failed, though nothing hindered the undoing"
		}
	default:
		return "not a final state of an import: " + o.res.State.String()
	}
	if w.open != 0 && !anyHurt(w, "deaf") {
		return fmt.Sprintf("%d records were not released", w.open)
	}
	return ""
}

func anyHurt(w *world, kind string) bool {
	for _, h := range w.hurts {
		if h.used && h.kind == kind {
			return true
		}
	}
	return false
}

// hurtAt reports whether a call whose name begins so was hurt.
func hurtAt(w *world, name string) bool {
	for _, l := range w.trace {
		if strings.HasPrefix(l, name) && strings.Contains(l, "<-") {
			return true
		}
	}
	return false
}

// TestEventsAreIsolated runs many events at once, of which every other one is
// hurt: the hurt ones fail alone.
func TestEventsAreIsolated(t *testing.T) {
	var wg sync.WaitGroup
	for n := range 40 {
		wg.Go(func() {
			var hurts []*hurt
			if n%2 == 1 {
				hurts = []*hurt{{kind: []string{"error", "panic", "cancel"}[n%3], at: 12}}
			}
			o := play(n%len(setups), 4, hurts...)
			if problem := judge(setups[n%len(setups)].dest, o); problem != "" {
				t.Errorf("event %d: %s", n, problem)
			}
			if n%2 == 0 && o.err != nil {
				t.Errorf("event %d was not hurt and failed: %v", n, o.err)
			}
		})
	}
	wg.Wait()
}
