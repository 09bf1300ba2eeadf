// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/credential"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
	"github.com/io-mig/mig/layers/kernel/timer"
)

// base are the subsystems without which nothing runs.
var base = []kerneltest.Constructor{
	kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(signal.New), kerneltest.Of(cpu.New),
}

// everything are those that need no descriptors.
var everything = append(slices.Clone(base), kerneltest.Of(timer.New), kerneltest.Of(credential.New))

// many is n where MIG_SOAK is set, as it is by make soak, half as often
// otherwise, and a few with -short.
func many(n int) int {
	switch {
	case testing.Short():
		return min(n, 3)
	case os.Getenv("MIG_SOAK") != "":
		return n
	}
	return (n + 1) / 2
}

func TestMemory(t *testing.T) {
	for name, dynamic := range map[string]bool{"static": false, "dynamic": true} {
		t.Run(name, func(t *testing.T) {
			kerneltest.RoundTrip(t, kerneltest.Program{
				Source: "testdata/memory.c", Args: []string{filepath.Join(t.TempDir(), "file")},
				Dynamic: dynamic, Generations: 3, LeaveRunning: true,
			}, base...)
		})
	}
}

// TestLockedFuture: new mappings are locked as before.
func TestLockedFuture(t *testing.T) {
	for _, how := range []string{"none", "future", "onfault"} {
		t.Run(how, func(t *testing.T) {
			kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/locked.c", Args: []string{how}, Generations: 2, LeaveRunning: true}, base...)
		})
	}
}

// TestManyMappings: the time is in proportion to their number.
func TestManyMappings(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/mappings.c"})
	c.Verify()
	begun := time.Now()
	image, err := c.Export(false, base...)
	if err != nil {
		t.Fatal(err)
	}
	exported := time.Since(begun)
	c.Stop()
	begun = time.Now()
	if c, err = c.Import(image, base...); err != nil {
		t.Fatal(err)
	}
	t.Logf("60,000 mappings: export %v, import %v", exported, time.Since(begun))
	c.Verify()
}

func TestFiftyGenerations(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/threads.c", Args: []string{"3"}, Generations: many(100)}, everything...)
}
