// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// later are calls that a task's threads are to make: those of several
// subsystems together, since a remote batch costs a thread the same whatever
// it holds.
type later struct {
	threads map[*tracer.Thread]int // index in batches
	batches []tracer.Batch
	checks  []func([]tracer.Batch) error
	scratch *tracer.Scratch // not nil: there is memory to give back
	mark    tracer.Mark
}

// Later has a thread make calls when RunLater is called, behind those that it
// was told before. check is given them with their results.
func (t *Task) Later(th *tracer.Thread, calls []tracer.Call, check func([]tracer.Call) error) {
	l := &t.later
	at, ok := l.threads[th]
	if !ok {
		if l.threads == nil {
			l.threads = map[*tracer.Thread]int{}
		}
		at = len(l.batches)
		l.threads[th], l.batches = at, append(l.batches, tracer.Batch{Thread: th})
	}
	b := &l.batches[at]
	from := len(b.Calls)
	b.Calls = append(b.Calls, calls...)
	to := len(b.Calls)
	l.checks = append(l.checks, func(batches []tracer.Batch) error {
		if err := check(batches[at].Calls[from:to]); err != nil {
			return fmt.Errorf("thread %d: %w", th.NSTid, err)
		}
		return nil
	})
}

// PutLater writes b into the task's scratch memory, where it stays until
// RunLater.
func (t *Task) PutLater(b []byte) (uint64, error) {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return 0, err
	}
	if t.later.scratch == nil {
		t.later.scratch, t.later.mark = sc, sc.Mark()
	}
	return sc.Put(b)
}

// RunLater runs what is waiting, all threads at the same time. The first
// failure is returned, in the order in which the calls were given.
func (t *Task) RunLater() error {
	l := t.later
	t.later = later{}
	if l.scratch != nil {
		defer l.scratch.Release(l.mark)
	}
	if len(l.batches) == 0 {
		return nil
	}
	if err := t.Traced.RunEach(l.batches); err != nil {
		return err
	}
	for _, check := range l.checks {
		if err := check(l.batches); err != nil {
			return err
		}
	}
	return nil
}

// errLater is a defect of ours.
var errLater = errors.New("calls were left that no subsystem has run")
