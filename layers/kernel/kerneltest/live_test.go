// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// rounds is a pre-copy of exactly n rounds.
func rounds(n int) control.Strategy { return control.Strategy{Name: "rounds", Rounds: n} }

func TestMove(t *testing.T) {
	for name, s := range map[string]control.Strategy{"no-rounds": control.StopAndCopy, "one-round": rounds(1), "five-rounds": rounds(5), "pre-copy": control.PreCopy} {
		t.Run(name, func(t *testing.T) {
			c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/dirty.c", Args: []string{"32", "2", "-1"}})
			for range 3 {
				n, m, err := c.Move(s, whole...)
				if err != nil {
					t.Fatal(err)
				}
				n.Verify()
				t.Logf("%v down, %d rounds, %d bytes, %q", m.Source.Downtime, len(m.Source.Rounds), m.Source.Bytes, m.Notes)
				c = n
			}
		})
	}
}

// TestMoveRepeats: pages that hold what others do go over once, and none is wrong,
// also while threads write others of the same contents. Where there are few, the
// repeats come before any page is sent for which it would pay to open a fill.
func TestMoveRepeats(t *testing.T) {
	const megabytes, most = "48", 12 << 20
	for name, c := range map[string]struct {
		s    control.Strategy
		rate string
		once bool // nothing is written meanwhile
	}{
		"few": {rounds(1), "0", true}, "few-no-rounds": {control.StopAndCopy, "-1", true},
		"no-rounds": {control.StopAndCopy, "-1", true}, "idle": {rounds(3), "0", true},
		"three-rounds": {rounds(3), "10", false}, "busy": {rounds(3), "-1", false}, "pre-copy": {control.PreCopy, "10", false}, "hybrid": {lazily(2), "10", false},
	} {
		t.Run(name, func(t *testing.T) {
			contents := "300"
			if strings.HasPrefix(name, "few") {
				contents = "3"
			}
			program := kerneltest.Start(t, kerneltest.Program{Source: "testdata/dirty.c", Args: []string{megabytes, "3", c.rate, contents}})
			for range many(3) {
				n, m, err := program.Move(c.s, whole...)
				if err != nil {
					t.Fatal(err)
				}
				n.Verify()
				t.Logf("%v down, %d rounds, %d bytes, %q", m.Source.Downtime, len(m.Source.Rounds), m.Source.Bytes, m.Notes)
				if c.once && m.Source.Bytes > most {
					t.Errorf("%d bytes have crossed for %s contents of pages of %s MB", m.Source.Bytes, contents, megabytes)
				}
				program = n
			}
		})
	}
}

// moves moves a program again and again, with rounds in which it goes on, and
// has it look at its memory each time.
func moves(t *testing.T, n int, p kerneltest.Program) (notes []string) {
	t.Helper()
	c := kerneltest.Start(t, p)
	for i := range n {
		copied, m, err := c.Move(rounds(2+i%4), whole...)
		if err != nil {
			t.Fatalf("move %d: %v", i, err)
		}
		copied.Verify()
		copied.Verify()
		c = copied
		if i == n-1 {
			t.Logf("%d rounds, %v down, %q", len(m.Source.Rounds), m.Source.Downtime, m.Notes)
		}
		notes = append(notes, m.Notes...)
	}
	return notes
}

// TestMoveTraps: what a program can do to its memory while it is copied.
func TestMoveTraps(t *testing.T) {
	for _, thing := range []string{"madvise", "huge", "hole", "munmap", "mremap", "part", "leave", "reader", "rooms", "brk", "protect", "guard", "fork", "stack", "read"} {
		t.Run(thing, func(t *testing.T) {
			moves(t, many(8), kerneltest.Program{Source: "testdata/traps.c", Args: []string{thing}})
		})
	}
	t.Run("exec", func(t *testing.T) {
		moves(t, many(10), kerneltest.Program{Source: "testdata/execs.c"})
	})
}

// TestMoveTrees: processes that are copied ahead beside their parents, that come
// and go meanwhile, and that fork.
func TestMoveTrees(t *testing.T) {
	for _, how := range []string{"steady", "churn", "forks"} {
		t.Run(how, func(t *testing.T) {
			notes := moves(t, many(8), kerneltest.Program{Source: "testdata/offspring.c", Args: []string{how}})
			if all := "task: 5 of 5 processes were made ahead"; how == "steady" && !slices.Contains(notes, all) {
				t.Errorf("%q lacks %q", notes, all)
			}
		})
	}
}

// lazily leaves memory behind, after n rounds.
func lazily(n int) control.Strategy {
	return control.Strategy{Name: "lazily", Rounds: n, LeaveBehind: control.LeaveAlways}
}

// TestPostCopy: the copy runs and waits for the pages that it touches.
func TestPostCopy(t *testing.T) {
	for name, n := range map[string]int{"post-copy": 0, "hybrid": 2} {
		t.Run(name, func(t *testing.T) {
			c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/dirty.c", Args: []string{"32", "4", "-1"}})
			for range many(4) {
				copied, m, err := c.Move(lazily(n), whole...)
				if err != nil {
					t.Fatal(err)
				}
				copied.Verify()
				t.Logf("%v down, %d rounds, %d bytes\n%s", m.Source.Downtime, len(m.Source.Rounds), m.Source.Bytes, m.TimeLine())
				c = copied
			}
		})
	}
}

// TestPostCopyTraps: what a program can do to its memory before it is there. The
// kernel tells nobody of guard pages that are installed and removed meanwhile, so
// those are missing here (docs/support.md).
func TestPostCopyTraps(t *testing.T) {
	for _, thing := range []string{"madvise", "huge", "hole", "munmap", "mremap", "part", "leave", "reader", "rooms", "brk", "protect", "fork", "stack", "read"} {
		t.Run(thing, func(t *testing.T) {
			c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/traps.c", Args: []string{thing}})
			for i := range many(8) {
				copied, _, err := c.Move(lazily(i%2), whole...)
				if err != nil {
					t.Fatalf("move %d: %v", i, err)
				}
				copied.Verify()
				copied.Verify()
				c = copied
			}
		})
	}
}

// TestPostCopyTrees: several processes at once.
func TestPostCopyTrees(t *testing.T) {
	for _, how := range []string{"steady", "churn", "forks"} {
		t.Run(how, func(t *testing.T) {
			c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/offspring.c", Args: []string{how}})
			for i := range many(8) {
				copied, _, err := c.Move(lazily(i%2), whole...)
				if err != nil {
					t.Fatalf("move %d: %v", i, err)
				}
				copied.Verify()
				c = copied
			}
		})
	}
}
