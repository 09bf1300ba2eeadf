// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"time"
)

// Strategy is the transfer order of an export: parameters of one algorithm
//
//	preflight -> early rounds -> stop -> residual -> switch -> what is left
//
// and not an algorithm of its own.
type Strategy struct {
	// Name for status and errors.
	Name string
	// Rounds bounds the early rounds; 0 means none.
	Rounds int
	// Downtime is the budget for the residual's transfer. Rounds end as soon as
	// what remains is expected to fit. 0: every round is made.
	Downtime time.Duration
	// Patience bounds the rounds as a whole; 0 means no bound.
	Patience time.Duration
	// LeaveBehind says whether subsystems leave for after the switch what can
	// be sent then.
	LeaveBehind LeavePolicy
	// Slower is how often the workload may be slowed down where rounds do not
	// shrink what remains (ExportOptions.Slow); 0 means never.
	Slower int
	// Hard refuses to stop the container when the rounds have ended and the
	// budget is not met; otherwise it is stopped all the same.
	Hard bool
}

// LeavePolicy says when state is left behind at the switch.
type LeavePolicy uint8

const (
	// LeaveNever: everything is there before the copy runs.
	LeaveNever LeavePolicy = iota
	// LeaveIfNeeded: only where the rounds could not meet the budget.
	LeaveIfNeeded
	// LeaveAlways: whatever may be sent later is sent later.
	LeaveAlways
)

// The strategies by name.
var (
	StopAndCopy = Strategy{Name: "stop-and-copy"}
	PreCopy     = Strategy{Name: "pre-copy", Rounds: 30, Downtime: 20 * time.Millisecond}
	PostCopy    = Strategy{Name: "post-copy", LeaveBehind: LeaveAlways}
	Hybrid      = Strategy{Name: "hybrid", Rounds: 1, LeaveBehind: LeaveAlways}
	Auto        = Strategy{Name: "auto", Rounds: 30, Downtime: 20 * time.Millisecond, LeaveBehind: LeaveIfNeeded}
)

// StrategyByName returns one of the strategies above.
func StrategyByName(name string) (Strategy, error) {
	for _, s := range []Strategy{StopAndCopy, PreCopy, PostCopy, Hybrid, Auto} {
		if s.Name == name {
			return s, nil
		}
	}
	return Strategy{}, fmt.Errorf("there is no strategy %q (there are auto, stop-and-copy, pre-copy, post-copy and hybrid)", name)
}

// Outlook is what the controller knows after an early round.
type Outlook struct {
	// Made rounds so far, at least 1.
	Made int
	// Sent bytes in the last round, and how long it took.
	Sent uint64
	Took time.Duration
	// Remaining bytes, which were dirtied while the last round ran; Before is
	// the same after the round before it, 0 for the first.
	Remaining, Before uint64
	// Elapsed since the first round began.
	Elapsed time.Duration
	// Slowed is how often the workload was slowed down.
	Slowed int
}

// Next is what follows an early round.
type Next uint8

const (
	// NextRound: another round.
	NextRound Next = iota + 1
	// NextLast: one more round, then the container is stopped.
	NextLast
	// NextSlower: another round, with the workload slowed down once more.
	NextSlower
	// NextGiveUp: the budget cannot be met and is hard.
	NextGiveUp
)

// Decision says what follows, and whether state is left behind at the switch.
type Decision struct {
	Next  Next
	Leave bool
}

// Decide is the controller: a function of what was measured. The last round
// shortens what remains to what is dirtied while it runs, so the budget is
// compared with the residual as it is expected after that round.
func (s Strategy) Decide(o Outlook) Decision {
	always := s.LeaveBehind == LeaveAlways
	if s.Downtime > 0 && s.fits(o) {
		return Decision{Next: NextLast, Leave: always}
	}
	exhausted := o.Made+1 >= s.Rounds || (s.Patience > 0 && o.Elapsed >= s.Patience)
	// Two rounds in a row that did not shrink the remainder by a tenth will not
	// be saved by a third: what is written is written as fast as it is sent.
	hopeless := s.Downtime > 0 && o.Before > 0 && o.Remaining > o.Before-o.Before/10
	switch {
	case !exhausted && !hopeless:
		return Decision{Next: NextRound}
	case !exhausted && o.Slowed < s.Slower:
		return Decision{Next: NextSlower}
	case s.LeaveBehind == LeaveIfNeeded && s.Downtime > 0:
		return Decision{Next: NextLast, Leave: true}
	case s.Hard && s.Downtime > 0:
		return Decision{Next: NextGiveUp}
	}
	return Decision{Next: NextLast, Leave: always}
}

// fits reports whether what remains is expected to be sent within the budget
// when one more round has been made.
func (s Strategy) fits(o Outlook) bool {
	if o.Remaining == 0 {
		return true
	}
	if o.Sent == 0 || o.Took <= 0 {
		return false
	}
	bandwidth := float64(o.Sent) / o.Took.Seconds()
	dirtying := float64(o.Remaining) / o.Took.Seconds()
	lastRound := float64(o.Remaining) / bandwidth
	residual := min(dirtying*lastRound, float64(o.Remaining))
	budget := s.Downtime.Seconds()
	if o.Made == 1 {
		budget /= slowPages
	}
	return residual/bandwidth <= budget
}

// slowPages is how much slower than the first round, which sends memory in long
// runs, those after it are expected to be: what is written comes in single pages.
// From the second round on the bandwidth is that of such pages.
const slowPages = 4
