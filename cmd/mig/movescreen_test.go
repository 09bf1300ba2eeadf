// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/io-mig/mig/shim/depart"
)

// TestFailedPhase: the phase in which a move fails is not shown as done.
func TestFailedPhase(t *testing.T) {
	for end, err := range map[string]error{"failed negotiate": errors.New("no"), "done   negotiate": nil} {
		var b strings.Builder
		s := newMoveScreen(&b, false)
		s.quiet, s.screen.tty = false, true // as on a terminal
		s.show(depart.Progress{Phase: depart.PhasePreflight})
		s.show(depart.Progress{Phase: depart.PhaseOffer})
		s.end(err)
		shown := b.String()[strings.LastIndex(b.String(), "F")+1:] // the last picture
		if !strings.HasPrefix(shown, "done   pre-flight") || !strings.Contains(shown, end) {
			t.Errorf("with %v: %q", err, shown)
		}
	}
}
