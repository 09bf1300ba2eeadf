// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Progress is a snapshot of a running job. A later one replaces an earlier one;
// some may be skipped.
type Progress struct {
	// State is the event's state, for example "residual" (control.State).
	State string `json:"state,omitempty"`
	// Round is the number of early rounds made.
	Round     int    `json:"round,omitempty"`
	Processes int    `json:"processes,omitempty"`
	Records   uint64 `json:"records,omitempty"`
	// Bytes of payload so far, Total as far as it is known.
	Bytes uint64 `json:"bytes,omitempty"`
	Total uint64 `json:"total,omitempty"`
	// Rate in bytes per second over the last interval.
	Rate uint64 `json:"rate,omitempty"`
	// Downtime so far, as the event measures it.
	Downtime time.Duration `json:"downtime,omitempty"`
	// Subsystems in their order.
	Subsystems []Subsystem `json:"subsystems,omitempty"`
	// Phases are the states that the event has entered, in order.
	Phases []Phase `json:"phases,omitempty"`
	// Steps of the switch, in the order in which they ended. Only the last progress
	// of a move has them.
	Steps []Step `json:"steps,omitempty"`
	// Warnings of the pre-flight and of later steps.
	Warnings []string `json:"warnings,omitempty"`
	// Doubt: COMMIT was sent and the answer is overdue. nil otherwise.
	Doubt *Doubt `json:"doubt,omitempty"`
}

// Doubt is why the source of a move stays frozen: nobody knows what became of the
// copy, or the copy needs what only this container has.
type Doubt struct {
	Since time.Time `json:"since"`
	// Destination is the host that is asked; Answer is what it said last, or why it
	// says nothing.
	Destination string `json:"destination"`
	Answer      string `json:"answer"`
	// Needed: the copy runs, and may lack what was left behind at the switch.
	Needed bool `json:"needed,omitempty"`
}

// Bounded returns a progress whose warnings fit into a message.
func (p Progress) Bounded() Progress {
	left := maxWarnings
	for i, w := range p.Warnings {
		if left -= len(w); left < 0 {
			p.Warnings = append(p.Warnings[:i:i], fmt.Sprintf("%d more warnings", len(p.Warnings)-i))
			return p
		}
	}
	return p
}

// Phase is a state that the event has entered.
type Phase struct {
	State string    `json:"state"`
	At    time.Time `json:"at"`
}

// Step is one call of the engine while the container stood still: a step of a
// subsystem for a process, or one of the event's own.
type Step struct {
	Name string        `json:"name"`
	At   time.Time     `json:"at"` // of its begin
	Took time.Duration `json:"took"`
}

// Subsystem is one subsystem's share of the progress.
type Subsystem struct {
	Name     string `json:"name"`
	Entities uint64 `json:"entities"`
	Bytes    uint64 `json:"bytes"`
	Total    uint64 `json:"total,omitempty"`
	Note     string `json:"note,omitempty"`
	// Took is the time its steps took, that of all workers together.
	Took time.Duration `json:"took,omitempty"`
}

// Keeper is a Reporter whose supervisor holds descriptors for the engine: what
// they guard stays guarded if the engine dies (a userfaultfd: while somebody has
// it open, no page is made up).
type Keeper interface {
	// Keep has the supervisor hold a duplicate of f until drop is called, or the
	// job has ended well. After any other end it is held until the supervisor has
	// dealt with what is left.
	Keep(f *os.File) (drop func() error, err error)
	// Leave has the supervisor hold a duplicate of f for a while, LongestLeft at most,
	// whatever becomes of the engine and of the job.
	Leave(f *os.File, d time.Duration) error
}

// LongestLeft is for how long a supervisor holds what an engine has left.
const LongestLeft = 10 * time.Minute

// Quiescer is a Reporter whose supervisor can have the container's application
// come to rest (Job.Quiesce).
type Quiescer interface {
	// Quiesce returns when the application is at rest, or says why it is not.
	Quiesce(ctx context.Context) error
	// Wake tells the application that its container goes on; reason is why the
	// event failed, empty if it did not. It does not wait for anything.
	Wake(reason string) error
}

// Supervised is a Reporter that knows whether its supervisor is there.
type Supervised interface {
	// Supervised looks at once and does not wait. Its error says that nobody looks
	// after the job any more, even if the end of its context is still on its way.
	Supervised() error
}

// Decider is a Reporter that is told when its job cannot be undone any more.
type Decider interface {
	// Decided says that nothing is to be undone from here on, and that much may still
	// have to be done: what the copy of a moved container lacks is with the other host.
	// Whoever cancels the job, before or afterwards, has not ended it as long as moved,
	// bytes that have come or gone, grows.
	Decided(moved func() uint64)
}

// Reporter takes a job's progress. It does not block.
type Reporter interface {
	Report(p Progress)
}
