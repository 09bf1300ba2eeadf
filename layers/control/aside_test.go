// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestAside: behind early rounds of a move, the shared step that may run beside
// others does, and its records come before those of its successors; anywhere else
// everyone has its turn.
func TestAside(t *testing.T) {
	for _, c := range []struct {
		name    string
		rounds  int
		moves   bool
		workers int
		beside  bool
		memory  time.Duration // its step
	}{
		{"a move with rounds", 2, true, 2, true, 0},
		{"a move with rounds, memory is done first", 2, true, 2, true, 5 * time.Millisecond},
		{"a move with rounds, memory is done last", 2, true, 2, true, 15 * time.Millisecond},
		{"a move without rounds", 0, true, 2, false, 0},
		{"post-copy", -1, true, 2, true, 5 * time.Millisecond},
		{"an image", 2, false, 2, false, 5 * time.Millisecond},
		{"one worker", 2, true, 1, false, 5 * time.Millisecond},
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
				{kind: "delay", name: "memory/1 residual 0", d: c.memory, at: -1},
			}
			begun := time.Now()
			if _, err := Export(context.Background(), o); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			took := time.Since(begun)
			want := 50*time.Millisecond + c.memory
			if c.beside {
				want = max(30*time.Millisecond, 20*time.Millisecond+c.memory)
			}
			if took != want {
				t.Errorf("%s: took %s, want %s", c.name, took, want)
			}
			last := map[string]int{} // where the last record of each is
			for i, r := range w.pushed {
				last[r.Subsystem] = i + 1
			}
			if last["rootfs"] == 0 || last["rootfs"] > last["memory"] {
				t.Errorf("%s: memory came before rootfs: %q", c.name, w.trace)
			}
		})
	}
}
