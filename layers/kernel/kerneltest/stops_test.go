// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"testing"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
)

// TestStops: what job control has stopped is stopped, and nobody is told again.
func TestStops(t *testing.T) {
	for name, p := range map[string]kerneltest.Program{
		"plain":          {Generations: many(5), LeaveRunning: true},
		"user namespace": {Generations: 2, UserNamespace: true, Filtered: true},
		"user": {
			Generations: 2, UID: 1000, GID: 1000, Dynamic: true,
			Allowed: &kerneltest.Allowed{UID: 1000, GID: 1000, Bounding: 1<<41 - 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.Source = "testdata/stops.c"
			kerneltest.RoundTrip(t, p, whole...)
		})
	}
}

// TestStopsOfAPausedContainer: who is stopped can only be seized when the
// container is thawed, and takes no step then.
func TestStopsOfAPausedContainer(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/stops.c"})
	for range many(5) {
		freeze(t, c)
		image, err := c.Export(true, whole...)
		if err != nil {
			t.Fatal(err)
		}
		if frozen, err := c.Freezer.Frozen(); err != nil || !frozen {
			t.Fatalf("it is not paused any more: %v", err)
		}
		if err := c.Freezer.Thaw(); err != nil {
			t.Fatal(err)
		}
		c.Verify()
		next, err := c.Import(image, whole...)
		if err != nil {
			t.Fatal(err)
		}
		next.Verify()
		next.Stop()
	}
}
