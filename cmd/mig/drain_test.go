// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

// TestPortion: moves at a time together have the bandwidth, and a bandwidth never
// becomes none.
func TestPortion(t *testing.T) {
	for _, test := range []struct {
		bandwidth uint64
		n         int
		want      uint64
	}{
		{0, 2, 0}, {100, 1, 100}, {100, 2, 50}, {100, 3, 33}, {1, 2, 1}, {100, 0, 100},
	} {
		if got := portion(test.bandwidth, test.n); got != test.want {
			t.Errorf("%d among %d: %d, want %d", test.bandwidth, test.n, got, test.want)
		}
	}
}
