// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Places of the address space, in the source's names for them.
const (
	placeP, placeQ, placeR, placeS = 0x100000, 0x200000, 0x300000, 0x400000
	placeSize                      = 0x10000
)

// told is what a userfaultfd tells, by one thread after another.
type told func(*books)

func move(from, to uint64) told { return func(b *books) { b.moved(from, to, placeSize) } }
func unmap(at uint64) told      { return func(b *books) { b.unmapped(run{at, at + placeSize}) } }
func unmapPart(at, n uint64) told {
	return func(b *books) { b.unmapped(run{at, at + n}) }
}
func empty(at uint64) told { return func(b *books) { b.emptied(run{at, at + placeSize}) } }
func quiet(b *books)       { b.settle() }

// where says which of the source's pages is where, and whether it is missing.
func where(b *books) string {
	var out []string
	for _, p := range []uint64{placeP, placeQ, placeR, placeS} {
		for _, o := range b.origins(run{p, p + placeSize}) {
			missing := "there"
			if len(b.missing.intersect(pageSet{o})) > 0 {
				missing = "missing"
			}
			out = append(out, fmt.Sprintf("%x at %x is %s", o.start>>20, p>>20, missing))
		}
	}
	return strings.Join(out, ", ")
}

func TestBooks(t *testing.T) {
	for name, c := range map[string]struct {
		events []told
		want   string
	}{
		"nothing":     {nil, "1 at 1 is missing, 2 at 2 is missing"},
		"unmap":       {[]told{unmap(placeP)}, "2 at 2 is missing"},
		"empty":       {[]told{empty(placeP)}, "1 at 1 is there, 2 at 2 is missing"},
		"move":        {[]told{move(placeP, placeR), unmap(placeP)}, "2 at 2 is missing, 1 at 3 is missing"},
		"move and go": {[]told{move(placeP, placeR), unmap(placeP), unmap(placeR)}, "2 at 2 is missing"},
		"there and back": {
			[]told{move(placeP, placeR), unmap(placeP), move(placeR, placeP), unmap(placeR)}, "1 at 1 is missing, 2 at 2 is missing",
		},
		"onto another": {
			[]told{unmap(placeP), move(placeQ, placeP), unmap(placeQ)}, "2 at 1 is missing",
		},
		"what stays where it was is told of no end": {
			[]told{move(placeP, placeR), move(placeR, placeS), unmap(placeR)}, "2 at 2 is missing, 1 at 4 is missing",
		},
		"shrinks and grows": {
			[]told{move(placeP, placeR), unmap(placeP), unmapPart(placeR, placeSize), quiet}, "2 at 2 is missing",
		},
		// One thread leaves P, another one is given P.
		"the end of a move is told late": {
			[]told{move(placeP, placeR), move(placeQ, placeP), unmap(placeP), unmap(placeQ)}, "2 at 1 is missing, 1 at 3 is missing",
		},
		"two moves are told in the wrong order": {
			[]told{move(placeQ, placeP), move(placeP, placeR), unmap(placeP), unmap(placeQ)}, "2 at 1 is missing, 1 at 3 is missing",
		},
		"both ends are told in the wrong order": {
			[]told{move(placeQ, placeP), move(placeP, placeR), unmap(placeQ), unmap(placeP)}, "2 at 1 is missing, 1 at 3 is missing",
		},
		"an unmapping is told late": {
			[]told{move(placeQ, placeP), unmap(placeP), unmap(placeQ)}, "2 at 1 is missing",
		},
		"an unmapping of what had no window is told late": {
			[]told{unmap(placeP), move(placeQ, placeP), unmap(placeP), unmap(placeQ)}, "2 at 1 is missing",
		},
		"what came last stays": {
			[]told{move(placeQ, placeP), quiet}, "2 at 1 is missing",
		},
		"half a move": {
			[]told{func(b *books) { b.moved(placeP+placeSize/2, placeR, placeSize/2) }, unmapPart(placeP+placeSize/2, placeSize/2), quiet},
			"1 at 1 is missing, 2 at 2 is missing, 1 at 3 is missing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := books{}
			for _, p := range []uint64{placeP, placeQ} {
				b.windows = append(b.windows, window{at: run{p, p + placeSize}, origin: p})
				b.missing = b.missing.put(run{p, p + placeSize})
			}
			for _, e := range c.events {
				e(&b)
			}
			if got := where(&b); got != c.want {
				t.Errorf("before all was told: %s; want %s", got, c.want)
			}
			b.settle()
			if got := where(&b); got != c.want {
				t.Errorf("when all was told: %s; want %s", got, c.want)
			}
			for _, m := range slices.Clone(b.missing) {
				if _, _, ok := b.lacks(m); !ok {
					t.Errorf("%x-%x is missing and has no place", m.start, m.end)
				}
			}
		})
	}
}

// TestBooksOfAChild: a fork between the events of another thread's move.
func TestBooksOfAChild(t *testing.T) {
	b := books{missing: pageSet{{placeP, placeP + placeSize}}, windows: []window{{at: run{placeP, placeP + placeSize}, origin: placeP}}}
	b.moved(placeP, placeR, placeSize)
	c := b.fork()
	b.unmapped(run{placeP, placeP + placeSize})
	c.unmapped(run{placeR, placeR + placeSize}) // by the child itself
	if got, want := where(&b), "1 at 3 is missing"; got != want {
		t.Errorf("the parent's: %s; want %s", got, want)
	}
	if got := where(&c); got != "" {
		t.Errorf("the child's: %s; want nothing", got)
	}
}
