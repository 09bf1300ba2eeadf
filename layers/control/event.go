// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/io-mig/mig/spec/record"
)

// Transition is one change of an event's state.
type Transition struct {
	Side     Side
	From, To State
	At       time.Time
}

// Observer is told of every transition before the event acts on it, from the
// event's goroutine. It must not block: it is in the path of the downtime.
type Observer func(Transition)

// Status is an event at a glance.
type Status struct {
	Side           Side
	State          State
	Started, Ended time.Time
	Processes      int
	Round          int
	Records, Bytes uint64
	// Subsystems in their order.
	Subsystems []SubsystemStatus
	// Active calls, sorted by their text.
	Active []string
}

// SubsystemStatus is one subsystem's status under its name.
type SubsystemStatus struct {
	Name string
	record.Status
}

// activeCall is a call that is under way.
type activeCall struct {
	Place
	shelter *shelter // nil: it has a goroutine of its own
}

// Event is one export or import. It is used once.
type Event struct {
	side       Side
	tune       Tuning
	subsystems []Subsystem

	dog watchdog
	// quit ends the watchdog; owned by the event's goroutine.
	quit func()

	mu sync.Mutex
	// Below: guarded by mu.
	state  State
	result Result
	round  int
	active map[uint64]activeCall
	nextID uint64
	// stuck holds the processes that a call which never returned may still
	// touch; record.Shared stands for all of them.
	stuck     map[record.ProcessID]bool
	abandoned []*StuckError
}

func newEvent(side Side, t Tuning, subsystems []Subsystem) *Event {
	return &Event{
		side: side, tune: t.withDefaults(), subsystems: subsystems,
		active: map[uint64]activeCall{}, stuck: map[record.ProcessID]bool{},
	}
}

// to moves the event to a state. An illegal transition is a defect.
func (e *Event) to(s State) error {
	e.mu.Lock()
	from := e.state
	if !legal(e.side, from, s) {
		e.mu.Unlock()
		return &DefectError{What: fmt.Sprintf("an %s may not go from %s to %s", e.side, from, s)}
	}
	e.state = s
	now := time.Now()
	switch {
	case s.Final():
		e.result.Ended = now
	case from == StateNew:
		e.result.Started = now
	}
	e.result.State = s
	e.mu.Unlock()
	e.dog.touch()
	if e.tune.Observer != nil {
		e.tune.Observer(Transition{Side: e.side, From: from, To: s, At: now})
	}
	return nil
}

func (e *Event) current() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state
}

// update changes the result under the event's lock.
func (e *Event) update(f func(r *Result)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.result)
}

func (e *Event) snapshot() Result {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.result
	r.Rounds = slices.Clone(r.Rounds)
	r.Warnings = slices.Clone(r.Warnings)
	return r
}

// passed counts one record through the medium, which is progress.
func (e *Event) passed(bytes int) {
	e.mu.Lock()
	e.result.Records++
	e.result.Bytes += uint64(bytes)
	e.mu.Unlock()
	e.dog.touch()
}

// Status is safe at any time, also after the event.
func (e *Event) Status() Status {
	r := e.snapshot()
	e.mu.Lock()
	s := Status{
		Side: e.side, State: e.state, Started: r.Started, Ended: r.Ended,
		Processes: r.Processes, Round: e.round, Records: r.Records, Bytes: r.Bytes,
	}
	for _, p := range e.active {
		s.Active = append(s.Active, p.String())
	}
	e.mu.Unlock()
	slices.Sort(s.Active)
	for _, sub := range e.subsystems {
		s.Subsystems = append(s.Subsystems, SubsystemStatus{Name: sub.Name(), Status: sub.Status()})
	}
	return s
}

// start arms the watchdog and ends an earlier one. The returned context ends
// when it barks; stop must be called.
func (e *Event) start(ctx context.Context) (_ context.Context, stop func()) {
	if e.quit != nil {
		e.quit()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	quit := e.dog.start(e.tune.Watchdog, e.tune.Moved, func() {
		cancel(&StallError{Timeout: e.tune.Watchdog, Active: e.underWay()})
	})
	e.quit = sync.OnceFunc(func() {
		quit()
		cancel(nil)
	})
	return ctx, e.quit
}

func (e *Event) underWay() []Place {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ps []Place
	for _, p := range e.active {
		ps = append(ps, p.Place)
	}
	slices.SortFunc(ps, func(a, b Place) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	return ps
}
