// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"testing"
	"time"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// TestPausedContainer: it is paused after each export, and what is imported
// goes on from where it was.
func TestPausedContainer(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/threads.c", Args: []string{"3"}})
	c.Verify()
	for range many(10) {
		freeze(t, c)
		if _, err := c.Export(true, everything...); err != nil {
			t.Fatal(err)
		}
		if frozen, err := c.Freezer.Frozen(); err != nil || !frozen {
			t.Fatalf("it is not paused any more: %v", err)
		}
		if err := c.Freezer.Thaw(); err != nil {
			t.Fatal(err)
		}
		c.Verify()
	}
	freeze(t, c)
	image, err := c.Export(false, everything...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	next, err := c.Import(image, everything...)
	if err != nil {
		t.Fatal(err)
	}
	next.Verify()
}

// TestPausedContainerGivenUp: an export of a paused container that is cancelled
// while it is held puts everything back before the container is frozen again, since
// a frozen task answers no remote call.
func TestPausedContainerGivenUp(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/threads.c", Args: []string{"3"}})
	for range many(10) {
		freeze(t, c)
		begun := time.Now()
		if err := c.GiveUp(everything...); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took >= tracer.DefaultBatchTimeout {
			t.Fatalf("it took %v: a call was waited for that could not return", took)
		}
		if frozen, err := c.Freezer.Frozen(); err != nil || !frozen {
			t.Fatalf("it is not paused any more: %v", err)
		}
		if err := c.Freezer.Thaw(); err != nil {
			t.Fatal(err)
		}
		c.Verify()
	}
}

func freeze(t *testing.T, c *kerneltest.Container) {
	t.Helper()
	if err := c.Freezer.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
}
