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
	}, base...)
}
