// SPDX-License-Identifier: Apache-2.0

package live

import (
	"os"
	"testing"
	"time"
)

// TestDoubtWhileMemoryIsBehind: a copy runs, which its source does not hear for longer than
// an engine asks by itself. Nobody but that engine has the memory that the copy lacks: it
// asks on, and the copy gets it. Without MIG_SOAK by one strategy.
func TestDoubtWhileMemoryIsBehind(t *testing.T) {
	r := &randomWalk{walk: walkIn(newSteppedWorld(t)), tally: &tally{}}
	_, r.descriptors = r.program()
	for i, strategy := range []string{"post-copy", "hybrid"} {
		if i > 0 && os.Getenv("MIG_SOAK") == "" {
			break
		}
		from := r.on
		if r.check(strategy, nil, &fault{step: "destination: RUNNING written", out: 19 * time.Second}); r.on == from || r.tally.rows["the cable out for at most 2 s"].bereft > 0 {
			t.Errorf("%s: the container has not moved", strategy)
		}
	}
}
