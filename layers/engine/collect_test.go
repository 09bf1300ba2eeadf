// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// TestCollectorFollowsLiveHeap: a large job gets room, and gives it back.
func TestCollectorFollowsLiveHeap(t *testing.T) {
	percent, limit := debug.SetGCPercent(-1), debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
	tuneCollector()
	reaches := func(what string, ok func(int64) bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; {
			runtime.GC()
			now := debug.SetMemoryLimit(-1)
			if ok(now) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: the limit is %d", what, now)
			}
		}
	}
	reaches("small", func(n int64) bool { return n == memoryLimit })
	large := make([]byte, 3*memoryLimit)
	reaches("large", func(n int64) bool { return n >= 6*memoryLimit })
	runtime.KeepAlive(large)
	large = nil
	reaches("small again", func(n int64) bool { return n == memoryLimit })
}
