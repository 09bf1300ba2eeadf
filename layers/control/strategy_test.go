// SPDX-License-Identifier: Apache-2.0

package control

import (
	"math"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	const mb = 1 << 20
	sec, ms := time.Second, time.Millisecond
	hard, calm, patient := PreCopy, PreCopy, PreCopy
	hard.Hard = true
	slower := PreCopy
	slower.Slower = 2
	patient.Patience = 5 * sec
	calm.Downtime = 0
	for _, c := range []struct {
		name string
		s    Strategy
		o    Outlook
		want Decision
	}{
		// 1 GB/s; 10 MB dirtied in the second it took: 10 ms for the last round,
		// in which 0.1 MB are dirtied.
		{"budget met", PreCopy, Outlook{Made: 1, Sent: 1000 * mb, Took: sec, Remaining: 10 * mb}, Decision{Next: NextLast}},
		// 1 GB/s; 100 MB dirtied: 10 MB are expected to be left, which are 10 ms if
		// they travel as fast as what was sent in one piece.
		{"the first round flatters", PreCopy, Outlook{Made: 1, Sent: 1000 * mb, Took: sec, Remaining: 100 * mb}, Decision{Next: NextRound}},
		{"the second does not", PreCopy, Outlook{Made: 2, Sent: 1000 * mb, Took: sec, Remaining: 100 * mb, Before: 200 * mb}, Decision{Next: NextLast}},
		{"nothing remains", Auto, Outlook{Made: 1, Sent: 0, Took: 0}, Decision{Next: NextLast}},
		// 100 MB/s against 50 MB/s of writes: 12.5 MB = 125 ms expected.
		{"converging", PreCopy, Outlook{Made: 1, Sent: 100 * mb, Took: sec, Remaining: 50 * mb}, Decision{Next: NextRound}},
		{"still converging", PreCopy, Outlook{Made: 2, Sent: 50 * mb, Took: sec / 2, Remaining: 25 * mb, Before: 50 * mb}, Decision{Next: NextRound}},
		{"converged", PreCopy, Outlook{Made: 6, Sent: 6 * mb, Took: 60 * ms, Remaining: 3 * mb, Before: 6 * mb}, Decision{Next: NextLast}},
		{"hopeless, soft", PreCopy, Outlook{Made: 2, Sent: 100 * mb, Took: sec, Remaining: 100 * mb, Before: 100 * mb}, Decision{Next: NextLast}},
		{"hopeless, hard", hard, Outlook{Made: 2, Sent: 100 * mb, Took: sec, Remaining: 100 * mb, Before: 100 * mb}, Decision{Next: NextGiveUp}},
		{"hopeless, may leave", Auto, Outlook{Made: 2, Sent: 100 * mb, Took: sec, Remaining: 100 * mb, Before: 100 * mb}, Decision{Next: NextLast, Leave: true}},
		{"hopeless, may slow it down", slower, Outlook{Made: 2, Sent: 100 * mb, Took: sec, Remaining: 100 * mb, Before: 100 * mb}, Decision{Next: NextSlower}},
		{"hopeless, once more", slower, Outlook{Made: 4, Sent: 100 * mb, Took: sec, Remaining: 95 * mb, Before: 100 * mb, Slowed: 1}, Decision{Next: NextSlower}},
		{"slowed down, converging", slower, Outlook{Made: 4, Sent: 100 * mb, Took: sec, Remaining: 50 * mb, Before: 100 * mb, Slowed: 1}, Decision{Next: NextRound}},
		{"slowed down enough", slower, Outlook{Made: 6, Sent: 100 * mb, Took: sec, Remaining: 100 * mb, Before: 100 * mb, Slowed: 2}, Decision{Next: NextLast}},
		{"no round left to see it", slower, Outlook{Made: 29, Sent: 100 * mb, Took: sec, Remaining: 100 * mb, Before: 100 * mb}, Decision{Next: NextLast}},
		{"rounds used up", PreCopy, Outlook{Made: 29, Sent: 100 * mb, Took: sec, Remaining: 50 * mb, Before: 100 * mb}, Decision{Next: NextLast}},
		{"patience used up", patient, Outlook{Made: 3, Sent: 100 * mb, Took: sec, Remaining: 50 * mb, Before: 100 * mb, Elapsed: 6 * sec}, Decision{Next: NextLast}},
		{"patient", patient, Outlook{Made: 3, Sent: 100 * mb, Took: sec, Remaining: 50 * mb, Before: 100 * mb, Elapsed: 4 * sec}, Decision{Next: NextRound}},
		{"no budget: every round", calm, Outlook{Made: 3, Sent: 100 * mb, Took: sec, Remaining: 1, Before: 1}, Decision{Next: NextRound}},
		{"one round, then all left", Hybrid, Outlook{Made: 1, Sent: 100 * mb, Took: sec, Remaining: 50 * mb}, Decision{Next: NextLast, Leave: true}},
		{"nothing was sent", PreCopy, Outlook{Made: 1, Remaining: mb, Took: sec}, Decision{Next: NextRound}},
		{"absurd numbers", Auto, Outlook{Made: 1, Sent: 1, Took: 1, Remaining: math.MaxUint64}, Decision{Next: NextRound}},
	} {
		if got := c.s.Decide(c.o); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestStrategyByName(t *testing.T) {
	for _, n := range []string{"auto", "stop-and-copy", "pre-copy", "post-copy", "hybrid"} {
		if s, err := StrategyByName(n); err != nil || s.Name != n {
			t.Errorf("%s: %+v, %v", n, s, err)
		}
	}
	if _, err := StrategyByName("hope"); err == nil {
		t.Error("a strategy that does not exist was found")
	}
}
