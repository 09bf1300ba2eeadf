// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAside: behind early rounds of a move, the shared step that may run beside
// others does, and is done before its successors begin; anywhere else everyone
// has its turn.
func TestAside(t *testing.T) {
	for _, c := range []struct {
		name    string
		rounds  int
		moves   bool
		workers int
		beside  bool
	}{
		{"a move with rounds", 2, true, 2, true},
		{"a move without rounds", 0, true, 2, false},
		{"post-copy", -1, true, 2, true},
		{"an image", 2, false, 2, false},
		{"one worker", 2, true, 1, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(1)
			defer close(w.over)
			o := ExportOptions{
				Tuning: Tuning{Workers: c.workers}, Container: w, Medium: w, Strategy: Strategy{Name: c.name, Rounds: c.rounds},
				Subsystems: []Subsystem{
					&fakeSubsystem{w: w, name: "task", steps: 1, shared: 1},
					&fakeSubsystem{w: w, name: "rootfs", shared: 1, aside: true},
					&fakeSubsystem{w: w, name: "memory", steps: 1},
				},
			}
			if c.rounds < 0 {
				o.Strategy = PostCopy
			}
			if c.moves {
				o.Switch = commitOf(w)
			}
			w.hurts = []*hurt{
				{kind: "delay", name: "task/1 residual 0", d: 20 * time.Millisecond, at: -1},
				{kind: "delay", name: "rootfs/0 residual 0", d: 30 * time.Millisecond, at: -1},
			}
			begun := time.Now()
			if _, err := Export(context.Background(), o); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			took := time.Since(begun)
			if want := map[bool]time.Duration{true: 30 * time.Millisecond, false: 50 * time.Millisecond}[c.beside]; took != want {
				t.Errorf("%s: took %s, want %s", c.name, took, want)
			}
			at := func(name string) int {
				return slices.IndexFunc(w.trace, func(s string) bool { return strings.HasPrefix(strings.TrimSpace(s), name) })
			}
			if at("push rootfs") > at("memory/1 residual 0") {
				t.Errorf("%s: memory began before rootfs was done: %q", c.name, w.trace)
			}
		})
	}
}
