// SPDX-License-Identifier: Apache-2.0

// Package handover is the two-phase switch of a move, as two pure state
// machines: one per side, of which each input yields the next state and a list
// of actions. Whoever drives them (over a medium's Command) performs the actions
// in their order; a journal entry is durable before the next action begins.
//
//	source (frozen)                    destination (frame)
//	  sealed, everything flushed         built
//	                          <- READY
//	  journal COMMITTED
//	                          COMMIT ->
//	                                     journal COMMITTED, run, journal RUNNING
//	                          <- RUNNING
//	  journal MOVED, end the tasks
//
// Messages may be lost, doubled, late or out of order; either side may crash
// between any two actions, and meets the other again with its token. The rules
// that keep one copy:
//
//   - The source thaws only if COMMIT was never sent, or if the destination has
//     said ABORTED; the destination writes ABORTED down before it says so, and
//     never runs afterwards.
//   - The destination runs only on COMMIT, and writes it down before.
//   - The source is ended only on RUNNING.
//   - A destination that crashed between the two does not know whether a task
//     ran. It says LOST, and the source stays frozen until a person decides.
package handover

import "fmt"

// Message crosses from one side to the other, always beside the move's token:
// a driver drops those with another.
type Message uint8

// The messages.
const (
	// Ready: destination: only COMMIT is missing.
	Ready Message = iota + 1
	// Commit: source: run the copy.
	Commit
	// Running: destination: the copy runs; the source must never again.
	Running
	// Abort: source: do not run the copy; it runs itself.
	Abort
	// Aborted: destination: the copy has not run and never will.
	Aborted
	// Lost: destination: the copy may have run and is gone.
	Lost
)

func (m Message) String() string {
	return [...]string{"none", "READY", "COMMIT", "RUNNING", "ABORT", "ABORTED", "LOST"}[m]
}

// Input is what happens at one side beside messages.
type Input uint8

// The inputs.
const (
	// Prepared: source: sealed and flushed; destination: built.
	Prepared Input = iota + 1
	// Failed: an error, a cancel or a time-out on this side.
	Failed
	// Met: the sides are connected again, or nothing was heard for a while.
	Met
	// Forced: a person has made sure that the copy is dead and frees the source.
	Forced
	// NotRun: destination: Run failed, and no task was let go.
	NotRun
	// PartlyRun: destination: Run failed, and a task may have been let go.
	PartlyRun
)

// Verb is what an Action asks for.
type Verb uint8

// The verbs.
const (
	// Journal writes Entry durably.
	Journal Verb = iota + 1
	// Send sends Message; whether it arrives is nobody's promise.
	Send
	// Thaw lets the source's tasks go on; harmless when repeated.
	Thaw
	// End ends the source's tasks; harmless when repeated.
	End
	// Run lets the copy's tasks go. If it fails, the actions behind it are
	// dropped and NotRun or PartlyRun is the next input.
	Run
	// Discard ends the copy's tasks; harmless when repeated.
	Discard
	// Alarm tells a person that both copies may run: the source was freed by
	// force, and the destination says RUNNING.
	Alarm
)

// Action is one thing to be done by the driver.
type Action struct {
	Verb    Verb
	Message Message
	Entry   Entry
}

func (a Action) String() string {
	switch a.Verb {
	case Journal:
		return "journal " + string(a.Entry)
	case Send:
		return "send " + a.Message.String()
	case Thaw:
		return "thaw"
	case End:
		return "end the source's tasks"
	case Run:
		return "run the copy"
	case Discard:
		return "discard the copy"
	case Alarm:
		return "ALARM: the source was freed by force and the copy runs"
	}
	return fmt.Sprintf("verb %d", a.Verb)
}

// Entry is a journal entry. The last one counts; none is the empty string.
type Entry string

// The entries.
const (
	EntryNone      Entry = ""
	EntryCommitted Entry = "COMMITTED" // both sides
	EntryMoved     Entry = "MOVED"     // source
	EntryKept      Entry = "KEPT"      // source
	EntryRunning   Entry = "RUNNING"   // destination
	EntryAborted   Entry = "ABORTED"   // destination
	EntryLost      Entry = "LOST"      // destination
)

func journal(e Entry) Action { return Action{Verb: Journal, Entry: e} }

func send(m Message) Action { return Action{Verb: Send, Message: m} }
