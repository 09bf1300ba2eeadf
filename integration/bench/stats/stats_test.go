// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"math"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   Series
		want float64
	}{
		{nil, 0},
		{Series{3}, 3},
		{Series{9, 1, 5}, 5},
		{Series{9, 1, 5, 2}, 3.5},
	} {
		if got := c.in.Median(); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.in, got, c.want)
		}
	}
	s := Series{9, 1, 5}
	s.Median()
	if s[0] != 9 {
		t.Error("the order of the measurements was changed")
	}
}

func TestRates(t *testing.T) {
	var s Series
	s.Add(500 * time.Millisecond)
	if got := s.Rates(2_000_000_000)[0]; math.Abs(got-4) > 1e-9 {
		t.Errorf("2 GB in half a second are %v GB/s", got)
	}
}

func TestPairs(t *testing.T) {
	a, b := Series{1, 2, 3}, Series{2, 8}
	if got := a.Plus(b); len(got) != 2 || got[1] != 10 {
		t.Errorf("sum is %v", got)
	}
	if got := a.Over(b); len(got) != 2 || got[1] != 0.25 {
		t.Errorf("ratio is %v", got)
	}
	if a.Min() != 1 || a.Max() != 3 {
		t.Error("minimum or maximum")
	}
}
