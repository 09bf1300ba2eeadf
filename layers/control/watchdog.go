// SPDX-License-Identifier: Apache-2.0

package control

import (
	"sync/atomic"
	"time"
)

// watchdog calls bark once when it was not touched for its time-out. It reads
// time only through package time, so that tests run it in a synctest bubble.
type watchdog struct {
	// last is the time of the last touch, nanoseconds after the start of the
	// watchdog: an atomic, since every step and every record touches it.
	last  atomic.Int64
	epoch atomic.Pointer[time.Time]
}

func (w *watchdog) touch() {
	if e := w.epoch.Load(); e != nil {
		w.last.Store(int64(time.Since(*e)))
	}
}

// watchdogLooks is how often within its time-out a watchdog looks whether bytes move.
const watchdogLooks = 8

// start returns the function that ends the watchdog. A time-out that is not
// positive means none. moved counts bytes: its growth is a touch. It may be nil.
func (w *watchdog) start(timeout time.Duration, moved func() uint64, bark func()) (stop func()) {
	if timeout <= 0 {
		return func() {}
	}
	longest := timeout
	var before uint64
	if moved != nil {
		longest = max(timeout/watchdogLooks, 1)
		before = moved()
	}
	now := time.Now()
	w.last.Store(0)
	w.epoch.Store(&now)
	quit := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTimer(longest)
		defer t.Stop()
		for {
			select {
			case <-quit:
				return
			case <-t.C:
			}
			if moved != nil {
				if n := moved(); n > before {
					before = n
					w.touch()
				}
			}
			idle := time.Since(now) - time.Duration(w.last.Load())
			if idle >= timeout {
				bark()
				return
			}
			t.Reset(min(longest, timeout-idle))
		}
	}()
	return func() {
		close(quit)
		<-gone
	}
}
