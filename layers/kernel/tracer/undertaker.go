// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"sync"
	"time"
)

// undertaker takes the exit status of seized threads while the tracer's
// thread may be blocked. PTRACE_SEIZE waits for the target's
// cred_guard_mutex; a sibling in execve holds it until all other threads are
// gone; and those we have seized are gone only when their status is taken:
// a deadlock, unless another thread does that (any thread of the tracer's
// process may, wait(2)).
type undertaker struct {
	mu   sync.Mutex
	tids []int
	stop chan struct{}
}

const undertakerTick = 2 * time.Millisecond

func newUndertaker() *undertaker {
	u := &undertaker{stop: make(chan struct{})}
	go func() {
		tick := time.NewTicker(undertakerTick)
		defer tick.Stop()
		for {
			select {
			case <-u.stop:
				return
			case <-tick.C:
				u.round()
			}
		}
	}()
	return u
}

// watch adds a thread, never the leader: its status is for its parent.
func (u *undertaker) watch(tid int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tids = append(u.tids, tid)
}

func (u *undertaker) round() {
	u.mu.Lock()
	defer u.mu.Unlock()
	left := u.tids[:0]
	for _, tid := range u.tids {
		if _, err := peekStop(tid); errors.Is(err, ErrExited) {
			reap(tid)
			continue
		}
		left = append(left, tid)
	}
	u.tids = left
}

func (u *undertaker) close() { close(u.stop) }
