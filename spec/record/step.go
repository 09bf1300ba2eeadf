// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"fmt"
)

// Stage is the point of an event at which control asks a subsystem for a step.
// One generic order serves every strategy (DESIGN.md, Contracts): a
// stop-and-copy has no Early steps and nothing in Left, and so on.
type Stage uint8

// The stages of the side that exports, in order.
const (
	// StageEarly: the tasks run. One step is one pre-copy round.
	StageEarly Stage = iota + 1
	// StageResidual: the tasks are stopped. What is left is exported, except
	// what the strategy leaves for later.
	StageResidual
	// StageLeft: the copy runs already; what was left behind is pushed.
	StageLeft
)

// The stages of the side that imports, in order. Records are imported as they
// arrive (StageReceive); the later stages are driven without a record, each
// for every subsystem in their order before the next stage begins.
const (
	// StageReceive: a record has arrived. It is applied at once or kept.
	StageReceive Stage = iota + 16
	// StageBuild: every record before the switch is there: protections,
	// descriptors, signal handlers, everything that belongs to a process.
	StageBuild
	// StageJoin: threads are created.
	StageJoin
	// StageSettle: what belongs to a thread, and what must come late: robust
	// lists, timers, limits, credentials.
	StageSettle
	// StageResume: registers. Nothing may run in a task afterwards.
	StageResume
)

var stageNames = map[Stage]string{
	StageEarly: "early", StageResidual: "residual", StageLeft: "left",
	StageReceive: "receive", StageBuild: "build", StageJoin: "join", StageSettle: "settle", StageResume: "resume",
}

func (s Stage) String() string {
	if n, ok := stageNames[s]; ok {
		return n
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

// ImportStages are the record-less stages of an import, in order.
var ImportStages = []Stage{StageBuild, StageJoin, StageSettle, StageResume}

// Step asks a subsystem for one bounded piece of work.
type Step struct {
	Stage Stage
	// Process is the one to work on. A subsystem is asked once with Shared
	// before the processes of a stage, for state that belongs to none.
	Process ProcessID
	// Round counts the steps of this stage and process from 0.
	Round int
	// Last is set in StageEarly for the round before the tasks are stopped.
	Last bool
	// Lean is set in StageEarly where what may be left behind at the switch is not
	// to be sent ahead: only what the switch would take long for.
	Lean bool
	// Leave is set in StageResidual where the strategy allows to leave for
	// StageLeft what can be sent when the copy runs already.
	Leave bool
}

// Progress says how far one step got.
type Progress struct {
	// Done: nothing is left in this stage for this process.
	Done bool
	// Advanced: the step did something. The watchdog ends an event in which no
	// step advances for its time-out.
	Advanced bool
	// Entities and Bytes that this step handled.
	Entities, Bytes uint64
	// Remaining estimates the bytes still to come, for the controller that
	// decides between another round and the switch; 0 if unknown or none.
	Remaining uint64
}

// Status is a subsystem's state at a glance. It is cheap and safe to ask for
// at any time, also during a step.
type Status struct {
	// Entities and Bytes handled so far in the event.
	Entities, Bytes uint64
	// Total bytes expected, 0 while unknown.
	Total uint64
	// Note is one short line for a person, may be empty.
	Note string
}

// Fault diverts the normal sequence to recover one entity: the page that a
// restored task has just touched, a record whose checksum failed.
type Fault struct {
	Header Header
	// Cause is what was noticed, for the log.
	Cause error
}

// Finding is one item that a pre-flight found: state that cannot be carried.
type Finding struct {
	// Pid is the process as the host sees it, 0 for the whole container. TID
	// is set where one thread is meant, FD where one descriptor is (-1: none).
	Pid int `json:"pid,omitempty"`
	TID int `json:"tid,omitempty"`
	FD  int `json:"fd"`
	// Subsystem that refuses.
	Subsystem string `json:"subsystem"`
	// What was found, Why it cannot be carried, and what to do about it.
	What   string `json:"what"`
	Why    string `json:"why,omitempty"`
	Remedy string `json:"remedy,omitempty"`
	// Warning: worth saying, but no reason to refuse.
	Warning bool `json:"warning,omitempty"`
	// Passing: it goes away by itself in a moment, as a connection does that
	// waits to be accepted. See ErrPassing.
	Passing bool `json:"passing,omitempty"`
}

// ErrPassing is what errors are that name state which cannot be carried now, and
// probably can in a moment: it is worth trying again.
var ErrPassing = errors.New("it is so for a moment only")

func (f Finding) String() string {
	s := fmt.Sprintf("%s: ", f.Subsystem)
	if f.Pid != 0 {
		s += fmt.Sprintf("pid %d: ", f.Pid)
	}
	if f.TID != 0 && f.TID != f.Pid {
		s += fmt.Sprintf("tid %d: ", f.TID)
	}
	if f.FD >= 0 {
		s += fmt.Sprintf("fd %d: ", f.FD)
	}
	s += f.What
	if f.Why != "" {
		s += ": " + f.Why
	}
	if f.Remedy != "" {
		s += " (" + f.Remedy + ")"
	}
	return s
}

// Sink takes the records of an export. Push may be called by several workers
// at once; it has consumed the payload when it returns, so the caller may
// reuse the buffer. Push seals the record. An error ends the event.
type Sink interface {
	Push(ctx context.Context, r *Record) error
}

// SinkFunc is a function that is a Sink.
type SinkFunc func(context.Context, *Record) error

// Push calls f.
func (f SinkFunc) Push(ctx context.Context, r *Record) error { return f(ctx, r) }
