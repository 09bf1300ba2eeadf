// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

func TestRegistersAndInterruptedCalls(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/registers.c", Generations: many(10), LeaveRunning: true}, base...)
}

// TestWaitsLeftRunning: calls that a stop ends with EINTR go on in a program
// that is left running.
func TestWaitsLeftRunning(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/epoll.c"})
	for range many(30) {
		if _, err := c.Export(true, base...); err != nil {
			t.Fatal(err)
		}
	}
	c.Verify()
}
