// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"sync"
	"time"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/request/job"
)

// maxSteps bounds what is kept of a time line: the last ones before the copy
// runs, or before the original is ended.
const maxSteps = 512

// stepLog keeps the steps of a switch: on the source those since it began to
// stop the container, on the destination those before the copy ran.
type stepLog struct {
	mu sync.Mutex
	// Below: guarded by mu.
	steps []loggedStep // a ring once it is full
	next  int
	over  bool
}

type loggedStep struct {
	place control.Place
	began time.Time
	ended time.Time
}

// called is control's Tuning.Called.
func (l *stepLog) called(p control.Place, began, ended time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := loggedStep{p, began, ended}
	switch {
	case l.over || p.Call == "pop record":
	case len(l.steps) < maxSteps:
		l.steps = append(l.steps, s)
	default:
		l.steps[l.next] = s
		l.next = (l.next + 1) % maxSteps
	}
}

// observe is told of the event's transitions.
func (l *stepLog) observe(t control.Transition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case t.To == control.StateHolding && t.From != control.StateSetup:
		l.steps, l.next = nil, 0
	case t.To == control.StateDecided || t.From == control.StateRunning:
		l.over = true
	}
}

// list is the time line, in the order in which the steps ended.
func (l *stepLog) list() []job.Step {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]job.Step, 0, len(l.steps))
	for i := range l.steps {
		s := l.steps[(l.next+i)%len(l.steps)]
		out = append(out, job.Step{Name: s.place.String(), At: s.began, Took: s.ended.Sub(s.began)})
	}
	return out
}
