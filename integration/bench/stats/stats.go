// SPDX-License-Identifier: Apache-2.0

// Package stats keeps what was measured and says what is typical of it.
package stats

import (
	"slices"
	"time"
)

// Series are the measurements of one thing, in the order in which they were
// made. The unit is the caller's.
type Series []float64

// Add appends a duration in milliseconds.
func (s *Series) Add(d time.Duration) { *s = append(*s, float64(d)/float64(time.Millisecond)) }

// Put appends a number.
func (s *Series) Put(x float64) { *s = append(*s, x) }

func (s Series) sorted() Series {
	c := slices.Clone(s)
	slices.Sort(c)
	return c
}

// Median is the middle one, or the mean of the two in the middle; 0 of none.
func (s Series) Median() float64 {
	c := s.sorted()
	switch n := len(c); {
	case n == 0:
		return 0
	case n%2 == 1:
		return c[n/2]
	default:
		return (c[n/2-1] + c[n/2]) / 2
	}
}

// Min is the smallest one, 0 of none.
func (s Series) Min() float64 {
	if len(s) == 0 {
		return 0
	}
	return slices.Min(s)
}

// Max is the largest one, 0 of none.
func (s Series) Max() float64 {
	if len(s) == 0 {
		return 0
	}
	return slices.Max(s)
}

// Plus adds two series measurement by measurement, as far as both go.
func (s Series) Plus(o Series) Series {
	n := min(len(s), len(o))
	sum := make(Series, n)
	for i := range n {
		sum[i] = s[i] + o[i]
	}
	return sum
}

// Over divides two series measurement by measurement, as far as both go: what
// disturbs the machine for longer than one measurement disturbs both.
func (s Series) Over(o Series) Series {
	n := min(len(s), len(o))
	ratio := make(Series, n)
	for i := range n {
		ratio[i] = s[i] / o[i]
	}
	return ratio
}

// Rates turns milliseconds for so many bytes each into GB/s (10^9 bytes).
func (s Series) Rates(bytes int) Series {
	rates := make(Series, len(s))
	for i, ms := range s {
		rates[i] = float64(bytes) / 1e6 / ms
	}
	return rates
}
