// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"
)

// begin starts an operation that changes the state. It waits, as long as ctx
// allows, for another one that is under way and, unless the operation is a
// start or a delete, for exec sessions that are just being started: neither the
// freezer nor a checkpoint should find half a process.
//
// The returned function ends it with the operation's error, once.
func (t *task) begin(ctx context.Context, op operation) (end func(error), err error) {
	for {
		t.mu.Lock()
		from := t.state
		s, ok := transitions[op][from]
		wait := t.settled
		if ok && len(t.execStarts) > 0 && (op == opPause || op == opCheckpoint) {
			ok, wait = false, anyOf(t.execStarts)
		}
		if ok {
			t.state = s.during
			settled := make(chan struct{})
			t.settled = settled
			t.mu.Unlock()
			return func(err error) { t.end(from, s, settled, err) }, nil
		}
		t.mu.Unlock()
		// What is over soon is waited for: a containerd that starts asks once for
		// the end of a shim without processes.
		ending := op == opDelete && from != stateDeleted && t.ends()
		if ending && !from.moving() {
			wait = t.init.done // its exit is not published yet
		}
		if err := refuse(op, from); err != nil && !ending {
			return nil, err
		}
		if err := waitFor(ctx, wait, from); err != nil {
			return nil, err
		}
	}
}

// ends: the init has ended, or is about to be found dead, since no process of the
// container lives, which is what Pids tells.
func (t *task) ends() bool {
	if t.init.over() {
		return true
	}
	pids, err := t.container.Pids()
	return err == nil && len(pids) == 0
}

// end leaves the transition. An exit that happened meanwhile has the last word, and
// a delete may have begun since then, which others wait for by now.
func (t *task) end(from state, s step, settled chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(settled)
	if t.settled == settled {
		t.settled = nil
	}
	switch {
	case t.state != s.during:
		// The init has exited: stopped.
	case err == nil:
		t.state = s.after
	case from != stateStopped && t.init.exited():
		t.state = stateStopped
	default:
		t.state = from
	}
}

// beginExec starts the start of an exec session, which shares the task with
// other ones but not with a transition.
func (t *task) beginExec(ctx context.Context, p *process) (end func(), err error) {
	for {
		t.mu.Lock()
		from, wait := t.state, t.settled
		if err := refuse(opExec, from); err != nil {
			t.mu.Unlock()
			return nil, err
		}
		if t.initGone {
			t.mu.Unlock()
			return nil, errInitGone(t.id)
		}
		if !from.moving() {
			done := make(chan struct{})
			t.execStarts[p] = done
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.execStarts, p)
				t.mu.Unlock()
				close(done)
			}, nil
		}
		t.mu.Unlock()
		if err := waitFor(ctx, wait, from); err != nil {
			return nil, err
		}
	}
}

func anyOf(m map[*process]chan struct{}) chan struct{} {
	for _, c := range m {
		return c
	}
	return nil
}

func waitFor(ctx context.Context, c <-chan struct{}, s state) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the task is %s: %w", s, ctx.Err())
	}
}
