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
//
// It watches threads from their SEIZE to the end of Attach, and those that a
// handle could not detach until they are gone.
type undertaker struct {
	mu      sync.Mutex
	tids    map[int]struct{}
	running bool
}

const (
	undertakerTick = 2 * time.Millisecond
	// undertakerShare bounds what it costs: it rests so many times as long as
	// its last round took.
	undertakerShare = 16
)

// watch adds a thread, never a leader: its status is for its parent. The
// first one starts a goroutine, which ends when there is none left.
func (u *undertaker) watch(tid int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.running {
		u.running = true
		u.tids = map[int]struct{}{}
		go func() {
			for {
				started := time.Now()
				if !u.round() {
					return
				}
				// Of a process of ten thousand threads it must not take more than
				// a little of the time in which they are seized.
				time.Sleep(max(undertakerTick, undertakerShare*time.Since(started)))
			}
		}()
	}
	u.tids[tid] = struct{}{}
}

// forget ends the watch over threads.
func (u *undertaker) forget(threads []*Thread) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, th := range threads {
		delete(u.tids, th.Tid)
	}
}

// round says whether threads are left to watch. Threads that are no tracees
// any more drop out like dead ones.
func (u *undertaker) round() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for tid := range u.tids {
		if _, err := peekStop(tid); errors.Is(err, ErrExited) {
			reap(tid)
			delete(u.tids, tid)
		}
	}
	u.running = len(u.tids) > 0
	return u.running
}
