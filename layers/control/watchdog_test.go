// SPDX-License-Identifier: Apache-2.0

package control

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatchdogSeesBytes: bytes that move keep the watchdog quiet however long a
// step takes; it barks when they have stood still for its time-out.
func TestWatchdogSeesBytes(t *testing.T) {
	const timeout, lasts = 10 * time.Second, 5 * time.Minute
	for _, test := range []struct {
		name  string
		every time.Duration // between two bytes, 0: none move
		moved bool          // the watchdog is told
		barks time.Duration // at the earliest
	}{
		{"nobody counts", time.Second, false, timeout},
		{"nothing moves", 0, true, timeout},
		{"they come in time", 9 * time.Second, true, lasts},
		{"they come too late", 30 * time.Second, true, timeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var bytes atomic.Uint64
				moved := bytes.Load
				if !test.moved {
					moved = nil
				}
				var w watchdog
				barked := make(chan time.Duration, 1)
				begun := time.Now()
				stop := w.start(timeout, moved, func() { barked <- time.Since(begun) })
				defer stop()
				if test.every > 0 {
					go func() {
						for time.Since(begun)+test.every <= lasts {
							time.Sleep(test.every)
							bytes.Add(1)
						}
					}()
				}
				after := <-barked
				if after < test.barks-test.every || after > test.barks+timeout+timeout/watchdogLooks {
					t.Errorf("it barks after %s", after)
				}
				time.Sleep(2 * lasts) // the bytes' goroutine ends
			})
		})
	}
}
