// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Barrier is where an application's threads of work meet while its state is
// taken: each calls Check where it may stand still, which costs one atomic load
// while nothing is asked. Its zero value is ready for use; Before and After are
// hooks.
type Barrier struct {
	closed atomic.Bool

	mu sync.Mutex
	// Below: guarded by mu.
	members int
	meeting *meeting      // nil while the barrier is open
	changed chan struct{} // closed and replaced when a number changes; nil: nobody waits
}

// meeting is one time that the barrier is closed: who has come to an earlier one
// and is not on its way again yet does not count.
type meeting struct {
	waiting int
	over    chan struct{}
}

// Join adds the caller to those that the barrier waits for. leave takes it out
// again.
func (b *Barrier) Join() (leave func()) {
	b.update(func() { b.members++ })
	var once sync.Once
	return func() { once.Do(func() { b.update(func() { b.members-- }) }) }
}

// Check waits while the barrier is closed. Only who has joined may call it.
func (b *Barrier) Check() {
	if !b.closed.Load() {
		return
	}
	var m *meeting
	b.update(func() {
		if m = b.meeting; m != nil {
			m.waiting++
		}
	})
	if m != nil {
		<-m.over
	}
}

// Before closes the barrier and waits until all members are there. With an error
// it has opened again.
func (b *Barrier) Before(ctx context.Context, _ Event) error {
	var m *meeting
	b.update(func() {
		if b.meeting == nil {
			b.meeting = &meeting{over: make(chan struct{})}
		}
		m = b.meeting
		b.closed.Store(true)
	})
	for {
		b.mu.Lock()
		members, waiting := b.members, m.waiting
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		if waiting >= members {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			b.After(Outcome{})
			return fmt.Errorf("%d of %d threads have come to the barrier: %w", waiting, members, context.Cause(ctx))
		}
	}
}

// After opens the barrier.
func (b *Barrier) After(Outcome) {
	b.update(func() {
		b.closed.Store(false)
		if b.meeting != nil {
			close(b.meeting.over)
			b.meeting = nil
		}
	})
}

// update changes numbers and wakes who waits for them.
func (b *Barrier) update(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}
