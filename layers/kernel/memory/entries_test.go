// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"slices"
	"testing"
)

// TestEachSpan gives each page of runs once and in their order, in spans that cover
// what they come with and are as long as they may be.
func TestEachSpan(t *testing.T) {
	page := func(from, to uint64) run { return run{from * pageSize, to * pageSize} }
	for _, c := range []struct {
		name  string
		runs  []run
		spans []run
	}{
		{"none", nil, nil},
		{"close", []run{page(3, 4), page(9, 12), page(514, 515)}, []run{page(3, 515)}},
		{"far", []run{page(3, 4), page(9, 12), page(515, 516)}, []run{page(3, 12), page(515, 516)}},
		{"long", []run{page(1, entriesAtOnce+3), page(entriesAtOnce+4, entriesAtOnce+5)},
			[]run{page(1, entriesAtOnce+1), page(entriesAtOnce+1, entriesAtOnce+5)}},
		{"down", []run{page(9, 12), page(3, 4)}, []run{page(9, 12), page(3, 4)}},
		{"again", []run{page(9, 12), page(10, 11), page(10, 11)}, []run{page(9, 12), page(10, 11), page(10, 11)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want, got, spans []run
			add := func(list []run, r run) []run {
				for ; r.start < r.end; r.start += pageSize {
					list = append(list, run{r.start, r.start + pageSize})
				}
				return list
			}
			for _, r := range c.runs {
				want = add(want, r)
			}
			err := eachSpan(c.runs, func(span run, parts []run) error {
				spans = append(spans, span)
				for _, r := range parts {
					if r.start < span.start || r.end > span.end {
						t.Errorf("%v is not in %v", r, span)
					}
					got = add(got, r)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("pages %v instead of %v", got, want)
			}
			if !slices.Equal(spans, c.spans) {
				t.Errorf("spans %v instead of %v", spans, c.spans)
			}
		})
	}
}
