// SPDX-License-Identifier: Apache-2.0

package runtime

import "testing"

// TestPauseUnderLoad: tasks that wait for a processor are slow to freeze.
func TestPauseUnderLoad(t *testing.T) {
	s := newSandbox(t)
	c := s.start(s.options("load", s.spec("load", sh(
		"for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do (while :; do :; done) & done; while :; do /bin/true; done")...)))
	for range 100 {
		must(t, c.Pause())
		must(t, c.Resume())
	}
}
