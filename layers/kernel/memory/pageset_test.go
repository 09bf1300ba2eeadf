// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"math/rand/v2"
	"testing"
)

// TestPageSet compares the operations with those on single pages.
func TestPageSet(t *testing.T) {
	const pages = 64
	rnd := rand.New(rand.NewPCG(1, 2))
	random := func() (s pageSet, bits [pages]bool) {
		for i := range bits {
			if rnd.IntN(3) == 0 {
				bits[i] = true
				s = s.put(run{uint64(i) * pageSize, uint64(i+1) * pageSize})
			}
		}
		return s, bits
	}
	for range 2000 {
		a, inA := random()
		b, inB := random()
		for name, c := range map[string]struct {
			got  pageSet
			want func(a, b bool) bool
		}{
			"union":     {a.union(b), func(a, b bool) bool { return a || b }},
			"intersect": {a.intersect(b), func(a, b bool) bool { return a && b }},
			"subtract":  {a.subtract(b), func(a, b bool) bool { return a && !b }},
		} {
			var want pageSet
			for i := range inA {
				if c.want(inA[i], inB[i]) {
					want = want.put(run{uint64(i) * pageSize, uint64(i+1) * pageSize})
				}
			}
			if len(c.got) != len(want) || c.got.bytes() != want.bytes() {
				t.Fatalf("%s of %v and %v is %v, want %v", name, a, b, c.got, want)
			}
			for i := range want {
				if c.got[i] != want[i] {
					t.Fatalf("%s of %v and %v is %v, want %v", name, a, b, c.got, want)
				}
			}
		}
	}
}
