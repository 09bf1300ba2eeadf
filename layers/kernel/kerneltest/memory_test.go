// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"testing"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
)

// base are the subsystems without which nothing runs.
var base = []kerneltest.Constructor{
	kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(signal.New), kerneltest.Of(cpu.New),
}

func TestMemory(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/memory.c"}, base...)
}

func TestGenerations(t *testing.T) {
	n := 50
	if testing.Short() {
		n = 5
	}
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/memory.c", Generations: n, LeaveRunning: true}, base...)
}
