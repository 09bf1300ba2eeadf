// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestBarrier: between Before and After no member works, a thousand times.
func TestBarrier(t *testing.T) {
	var b Barrier
	var working atomic.Int32
	var work atomic.Uint64
	quit := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		leave := b.Join()
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer leave()
			for {
				select {
				case <-quit:
					return
				default:
				}
				working.Add(1)
				work.Add(1)
				working.Add(-1)
				b.Check()
			}
		}()
	}
	for range 1000 {
		if err := b.Before(context.Background(), Event{}); err != nil {
			t.Fatal(err)
		}
		before := work.Load()
		if n := working.Load(); n != 0 {
			t.Fatalf("%d threads work behind the barrier", n)
		}
		if work.Load() != before {
			t.Fatal("work was done behind the barrier")
		}
		b.After(Outcome{})
	}
	close(quit)
	wg.Wait()
	if work.Load() < 1000 {
		t.Errorf("only %d steps were made", work.Load())
	}
	if err := b.Before(context.Background(), Event{}); err != nil { // all have left
		t.Fatal(err)
	}
	b.After(Outcome{})
}

// TestBarrierTimesOut: one that does not come opens it for the others.
func TestBarrierTimesOut(t *testing.T) {
	var b Barrier
	b.Join() // never comes
	leave := b.Join()
	came := make(chan struct{})
	go func() {
		for !b.closed.Load() {
			time.Sleep(time.Millisecond)
		}
		b.Check()
		leave()
		close(came)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := b.Before(ctx, Event{}); err == nil {
		t.Fatal("the barrier did not wait for all")
	}
	<-came
}
