// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"strings"
	"testing"
)

// TestOutcomeIsAskedFor: the source's shim dies with the original when the copy runs, and
// nobody has told mig: its connection to the destination's migd was lost. It asks, and
// says that the container was moved.
func TestOutcomeIsAskedFor(t *testing.T) {
	k := newWalk(t)
	o := k.suffer(nil,
		&fault{step: "destination: RUNNING sent", victim: k.mortal("source's shim")},
		&fault{step: "source: preflight", victim: k.mortal("migd")})
	on, off := k.survivor(k.id, o.from), o.from
	if on != o.to || o.report == nil || !o.report.Moved {
		t.Errorf("it runs on %s; %+v", on.Name, o.report)
	}
	if says := fmt.Sprint(o.err); !strings.Contains(says, "the copy of container "+k.id+" runs on "+o.to.Name) {
		t.Errorf("mig migrate says %s", says)
	}
	k.same(on, k.id, k.was)
	off.d.Remove(k.id)
	k.clean(off, "lease mig-")
}
