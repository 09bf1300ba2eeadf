// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/io-mig/mig/spec/record"
)

// TestTransitions checks the table itself: every state has a name, is reached
// from the beginning, and leads to an end.
func TestTransitions(t *testing.T) {
	for side, table := range transitions {
		reached := map[State]bool{StateNew: true}
		todo := []State{StateNew}
		for len(todo) > 0 {
			s := todo[0]
			todo = todo[1:]
			if s.Final() != (len(table[s]) == 0) {
				t.Errorf("%s: %s is final: %t, and %d states follow", side, s, s.Final(), len(table[s]))
			}
			if strings.HasPrefix(s.String(), "state ") {
				t.Errorf("%s: state %d has no name", side, s)
			}
			for _, n := range table[s] {
				if !reached[n] {
					reached[n] = true
					todo = append(todo, n)
				}
			}
		}
		for s := range table {
			if !reached[s] {
				t.Errorf("%s: %s is never reached", side, s)
			}
		}
	}
}

// TestNoWayBack: from no state after the decision can an export be undone.
func TestNoWayBack(t *testing.T) {
	seen := map[State]bool{}
	var walk func(State)
	walk = func(s State) {
		if s == StateUndoing || s == StateRolledBack {
			t.Error("a decided export can be undone")
		}
		if seen[s] {
			return
		}
		seen[s] = true
		for _, n := range transitions[SideExport][s] {
			walk(n)
		}
	}
	walk(StateDecided)
}

func TestIllegalTransition(t *testing.T) {
	e := newEvent(SideExport, Tuning{}, nil)
	var defect *DefectError
	if err := e.to(StateDecided); !errors.As(err, &defect) || e.current() != StateNew {
		t.Errorf("from new to decided: %v, now %s", err, e.current())
	}
}

// TestDefects are mistakes of whoever puts an event together.
func TestDefects(t *testing.T) {
	w := newWorld(1)
	named := func(names ...string) (subs []Subsystem) {
		for _, n := range names {
			subs = append(subs, &fakeSubsystem{w: w, name: n})
		}
		return subs
	}
	type plain struct{ Container } // without List
	for what, o := range map[string]ExportOptions{
		"two subsystems are named cpu": {Subsystems: named("cpu", "cpu")},
		"cannot be the name":           {Subsystems: named("control")},
		"cannot be moved":              {Leave: true, Strategy: PostCopy},
		"list its running processes":   {Strategy: PreCopy, Container: plain{w}},
	} {
		if o.Container == nil {
			o.Container = w
		}
		o.Medium = w
		res, err := Export(context.Background(), o)
		var defect *DefectError
		if !errors.As(err, &defect) || !strings.Contains(err.Error(), what) || res.State != StateRolledBack {
			t.Errorf("%s: %v, %s", what, err, res.State)
		}
	}
	if w.holds != 0 {
		t.Error("a task was touched")
	}
}

// liar exports records of another subsystem.
type liar struct{ fakeSubsystem }

func (l *liar) Checkpoint(ctx context.Context, _ record.Step, out record.Sink) (record.Progress, error) {
	return record.Progress{}, out.Push(ctx, &record.Record{Header: record.Header{Subsystem: "credential", Kind: 1}})
}

func TestSubsystemKeepsToItsName(t *testing.T) {
	w := newWorld(1)
	_, err := Export(context.Background(), ExportOptions{Container: w, Medium: w, Subsystems: []Subsystem{&liar{fakeSubsystem{w: w, name: "cpu"}}}})
	var defect *DefectError
	if !errors.As(err, &defect) || len(w.pushed) != 0 {
		t.Errorf("%v, %d records", err, len(w.pushed))
	}
}

// TestStatusWhileRunning reads the status from within a step.
func TestStatusWhileRunning(t *testing.T) {
	w := newWorld(1)
	var x *Exporter
	var seen Status
	probe := &prober{fakeSubsystem: fakeSubsystem{w: w, name: "cpu"}, ask: func() { seen = x.Status() }}
	x = NewExport(ExportOptions{Container: w, Medium: w, Subsystems: []Subsystem{probe}, Leave: true})
	if _, err := x.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if seen.State != StateResidual || seen.Processes != 1 || len(seen.Active) != 1 || seen.Subsystems[0].Note != "cpu" {
		t.Errorf("%+v", seen)
	}
	if end := x.Status(); end.State != StateDone || end.Ended.IsZero() || len(end.Active) != 0 {
		t.Errorf("%+v", end)
	}
}

type prober struct {
	fakeSubsystem
	ask func()
}

func (p *prober) Checkpoint(context.Context, record.Step, record.Sink) (record.Progress, error) {
	p.ask()
	return record.Progress{Done: true}, nil
}
