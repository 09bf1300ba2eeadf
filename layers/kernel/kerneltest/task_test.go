// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

func TestThreads(t *testing.T) {
	for name, dynamic := range map[string]bool{"static": false, "dynamic": true} {
		t.Run(name, func(t *testing.T) {
			kerneltest.RoundTrip(t, kerneltest.Program{
				Source: "testdata/threads.c", Args: []string{"3"}, Dynamic: dynamic, Generations: 3, LeaveRunning: true,
			}, base...)
		})
	}
}

func TestThousandThreads(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	kerneltest.RoundTrip(t, kerneltest.Program{
		Source: "testdata/threads.c", Args: []string{"1000"}, Generations: 2, LeaveRunning: true,
	}, everything...)
}

// TestGo exports a Go program: threads that no libc made, preemption by
// signals, timers. It runs on each time, since its runtime's epoll instance
// takes more than these subsystems to be made again.
func TestGo(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/server"})
	for range many(20) {
		if _, err := c.Export(true, everything...); err != nil {
			t.Fatal(err)
		}
		c.Verify()
	}
}
