// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/shim/depart"
)

// TestDoubtsAreTold: once for each answer, also where no progress is shown.
func TestDoubtsAreTold(t *testing.T) {
	var b bytes.Buffer
	s := newMoveScreen(&b, true)
	show := func(d *depart.Doubt) { s.show(depart.Progress{Phase: depart.PhaseMove, Doubt: d}) }
	doubt := func(answer string, needed bool) *depart.Doubt {
		return &depart.Doubt{
			Doubt:     request.Doubt{Destination: "10.0.0.2", Answer: answer, Needed: needed},
			Container: "web", Source: "alpha", Destination: "beta", Token: "0123",
		}
	}
	show(nil)
	show(doubt("dial tcp: no\x1b route", false))
	show(doubt("dial tcp: no\x1b route", false))
	show(doubt("LOST", false))
	show(nil)
	show(doubt("LOST", false))
	show(doubt("RUNNING", true))
	const want = `web is frozen on alpha, in doubt whether its copy on beta runs.
beta: dial tcp: no\x1b route
It goes on here, or ends, as soon as beta says which. mig status shows it. If the copy
is dead for good, let web go on here with: mig abort --force 0123
web is frozen on alpha, in doubt whether its copy on beta runs.
beta: LOST: the engine died while it let the copy go, which may have run and is gone
You decide. mig status shows it. If the copy
is dead for good, let web go on here with: mig abort --force 0123
web stays frozen on alpha: its copy runs on beta and may lack
memory that is only here. It ends here when the copy has everything. If the copy is
of no use any more, kill web here. mig status shows it.
beta: RUNNING: the copy runs
`
	if got := b.String(); got != want {
		t.Errorf("it says\n%s", got)
	}
}
