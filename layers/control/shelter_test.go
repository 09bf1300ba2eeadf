// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// TestReside: the steps of a stage are made in the processes' place, where there is
// one, in one visit, whatever was begun aside.
func TestReside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		defer close(w.over)
		var inside atomic.Bool
		var visits int
		reside := func(ids []record.ProcessID) func(func() error) error {
			if !slices.Equal(ids, []record.ProcessID{1}) {
				t.Errorf("steps of the processes %d, of which there is only 1", ids)
			}
			return func(fn func() error) error {
				visits++
				w.note("enter")
				inside.Store(true)
				defer w.note("leave")
				defer inside.Store(false)
				return fn()
			}
		}
		o := ExportOptions{
			Tuning: Tuning{Workers: 2, Reside: reside}, Container: w, Medium: w, Strategy: PreCopy, Switch: commitOf(w),
			Subsystems: []Subsystem{
				&fakeSubsystem{w: w, name: "task", steps: 1, shared: 1},
				&fakeSubsystem{w: w, name: "rootfs", shared: 1, aside: true, alone: true},
				&fakeSubsystem{w: w, name: "memory", steps: 1},
			},
		}
		w.hurts = []*hurt{{kind: "delay", name: "rootfs/0 residual 0", d: time.Second, at: -1}}
		if _, err := Export(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, line := range w.trace {
			if line == "enter" || line == "leave" || strings.Contains(line, "residual") && !strings.Contains(line, "push") {
				order = append(order, strings.Fields(line)[0])
			}
		}
		// rootfs is begun at once, beside what is made in the place.
		order = slices.DeleteFunc(order, func(s string) bool { return strings.HasPrefix(s, "rootfs") })
		if want := []string{"enter", "task/0", "task/1", "memory/0", "memory/1", "leave"}; !slices.Equal(order, want) {
			t.Errorf("%q, want %q", order, want)
		}
		if visits != 1 || inside.Load() {
			t.Errorf("%d visits", visits)
		}
	})
}

// TestNoPlace: what the place answers without having run anything is the event's
// error.
func TestNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		defer close(w.over)
		gone := errors.New("the place is gone")
		o := ExportOptions{
			Tuning:    Tuning{Reside: func([]record.ProcessID) func(func() error) error { return func(func() error) error { return gone } }},
			Container: w, Medium: w, Subsystems: []Subsystem{&fakeSubsystem{w: w, name: "task", steps: 1}},
		}
		if _, err := Export(context.Background(), o); !errors.Is(err, gone) {
			t.Errorf("%v", err)
		}
		if w.tasks[1] != running {
			t.Errorf("the process is %s", w.tasks[1])
		}
	})
}
