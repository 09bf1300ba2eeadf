// SPDX-License-Identifier: Apache-2.0

//go:build linux

package timer

import (
	"testing"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/task"
)

var others = []kerneltest.Constructor{
	kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(signal.New), kerneltest.Of(cpu.New),
}

// TestTimers carries timers of every kind, their ids given by the kernel
// (Linux 6.15) or found by trial.
func TestTimers(t *testing.T) {
	for name, search := range map[string]bool{"ids given": false, "ids searched": true} {
		t.Run(name, func(t *testing.T) {
			timers := kerneltest.Of(func(env target.Env) *Subsystem {
				s := New(env)
				s.searchIDs = search
				return s
			})
			kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/timers.c", Generations: 5, LeaveRunning: true}, append(others, timers)...)
		})
	}
}
