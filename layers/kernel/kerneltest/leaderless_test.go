// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"testing"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// TestLeaderless carries processes whose leaders have ended before their other
// threads, the container's first one among them, several times.
func TestLeaderless(t *testing.T) {
	for name, p := range map[string]kerneltest.Program{
		"plain":          {},
		"user namespace": {UserNamespace: true},
		"seccomp":        {Filtered: true},
	} {
		t.Run(name, func(t *testing.T) {
			p.Source, p.Generations, p.LeaveRunning = "testdata/leaderless.c", 3, true
			kerneltest.RoundTrip(t, p, whole...)
		})
	}
}

// TestLeaderlessMoved: likewise while they run, with memory ahead and behind.
func TestLeaderlessMoved(t *testing.T) {
	for name, s := range map[string]control.Strategy{"ahead": rounds(2), "behind": lazily(1)} {
		t.Run(name, func(t *testing.T) {
			c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/leaderless.c"})
			for range 2 {
				n, _, err := c.Move(s, whole...)
				if err != nil {
					t.Fatal(err)
				}
				n.Verify()
				c = n
			}
		})
	}
}
