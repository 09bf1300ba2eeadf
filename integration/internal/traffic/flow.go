// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"sync"
	"time"
)

// flow is an io.Writer that notes the longest time in which nothing came, and takes
// no more than rate bytes a second.
type flow struct {
	mu sync.Mutex
	// Below: guarded by mu.
	last    time.Time
	longest time.Duration
	total   int64
	rate    int // 0: as fast as it comes
}

// Write counts.
func (f *flow) Write(b []byte) (int, error) {
	f.mu.Lock()
	now := time.Now()
	f.longest = max(f.longest, now.Sub(f.last))
	f.total += int64(len(b))
	var pause time.Duration
	if f.rate > 0 {
		pause = time.Duration(len(b)) * time.Second / time.Duration(f.rate)
	}
	f.mu.Unlock()
	time.Sleep(pause)
	f.mu.Lock()
	f.last = time.Now()
	f.mu.Unlock()
	return len(b), nil
}

// begin begins a measurement.
func (f *flow) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.longest = 0
}

// after waits until so much more has come, or the flow has ended.
func (f *flow) after(bytes int64, ended <-chan struct{}) {
	for was, end := f.all(), time.Now().Add(patience); f.all() < was+bytes && time.Now().Before(end); {
		select {
		case <-ended:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// end is the longest silence since begin.
func (f *flow) end() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.longest
}

func (f *flow) all() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

// hurry lifts the limit.
func (f *flow) hurry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rate = 0
}
