// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"fmt"
	"slices"
)

// tasks of one side, as they really are.
type tasks string

const (
	frozen  tasks = "frozen"
	goingOn tasks = "running"
	over    tasks = "gone"
)

// system is both sides, the wires between them and the truth. It is a value:
// comparing two of them tells whether they are one state.
type system struct {
	src  Source
	dst  Destination
	srcJ Entry // what is durable
	dstJ Entry
	// todo are the actions not yet done. A side takes no input before.
	srcTodo, dstTodo string // encoded, so that system is comparable
	srcTasks         tasks
	dstTasks         tasks // frozen: the frame
	ran              bool  // the copy's tasks ran at some time
	forced           bool  // a person freed the source
	prepared         bool  // the source was sealed and flushed
	alarm            bool
	// Every message that was ever sent stays on its wire: it may arrive late,
	// twice, out of order, or never.
	toDst, toSrc uint16
}

func newSystem() system { return system{srcTasks: frozen, dstTasks: frozen} }

func encode(as []Action) string {
	var b []byte
	for _, a := range as {
		b = append(b, byte(a.Verb), byte(a.Message), byte(slices.Index(entries, a.Entry)))
	}
	return string(b)
}

var entries = []Entry{EntryNone, EntryCommitted, EntryMoved, EntryKept, EntryRunning, EntryAborted, EntryLost}

func decode(s string) (a Action, rest string) {
	return Action{Verb: Verb(s[0]), Message: Message(s[1]), Entry: entries[s[2]]}, s[3:]
}

func (s system) source(in Input) system {
	var as []Action
	s.src, as = s.src.Input(in)
	s.prepared = s.prepared || in == Prepared
	s.forced = s.forced || in == Forced && len(as) > 0
	s.srcTodo = encode(as)
	return s
}

func (s system) destination(in Input) system {
	var as []Action
	s.dst, as = s.dst.Input(in)
	s.dstTodo = encode(as)
	return s
}

func (s system) hear(atSource bool, m Message) system {
	var as []Action
	if atSource {
		s.src, as = s.src.Message(m)
		s.srcTodo = encode(as)
		return s
	}
	s.dst, as = s.dst.Message(m)
	s.dstTodo = encode(as)
	return s
}

// doSource performs the source's next action.
func (s system) doSource() (system, Action) {
	a, rest := decode(s.srcTodo)
	s.srcTodo = rest
	switch a.Verb {
	case Journal:
		s.srcJ = a.Entry
	case Send:
		s.toDst |= 1 << a.Message
	case Thaw:
		if s.srcTasks == frozen {
			s.srcTasks = goingOn
		}
	case End:
		s.srcTasks = over
	case Alarm:
		s.alarm = true
	}
	return s, a
}

// doDestination performs the destination's next action.
func (s system) doDestination() (system, Action) {
	a, rest := decode(s.dstTodo)
	s.dstTodo = rest
	switch a.Verb {
	case Journal:
		s.dstJ = a.Entry
		if a.Entry == EntryRunning {
			s.dst = s.dst.Ran()
		}
	case Send:
		s.toSrc |= 1 << a.Message
	case Run:
		s.dstTasks, s.ran = goingOn, true
	case Discard:
		s.dstTasks = over
	}
	return s, a
}

// crashSource loses what is not in the journal. The tasks stay as they are:
// frozen by the freezer, or going on.
func (s system) crashSource() system {
	var as []Action
	s.src, as = RecoverSource(s.srcJ)
	s.srcTodo = encode(as)
	return s
}

// crashDestination kills the engine, and its frame with it; with the host,
// running tasks die, too.
func (s system) crashDestination(host bool) system {
	if s.dstTasks == frozen || host {
		s.dstTasks = over
	}
	var as []Action
	s.dst, as = RecoverDestination(s.dstJ, s.dstTasks == goingOn)
	s.dstTodo = encode(as)
	return s
}

// wrong says which rule a state breaks.
func (s system) wrong() string {
	switch {
	case s.srcTasks == goingOn && s.dstTasks == goingOn:
		return "two copies run"
	case s.srcTasks == over && !s.ran:
		return "the source was ended and no copy ever ran"
	case s.srcTasks == goingOn && s.ran && !s.forced:
		return "the source goes on though its copy has run"
	case s.srcJ == EntryCommitted && (!s.prepared || s.toSrc&(1<<Ready) == 0):
		return "the source committed before both sides were ready"
	case s.alarm:
		return "the alarm rang"
	}
	return ""
}

func (s system) String() string {
	return fmt.Sprintf("source %s (journal %q), copy %s (journal %q)", s.srcTasks, s.srcJ, s.dstTasks, s.dstJ)
}

// settled: one side has the container, and the other one nothing.
func (s system) settled() bool {
	return s.srcTodo == "" && s.dstTodo == "" &&
		(s.srcTasks == goingOn && s.dstTasks == over || s.srcTasks == over && s.ran)
}
