// SPDX-License-Identifier: Apache-2.0

//go:build linux

package credential

import (
	"testing"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
)

var all = []kerneltest.Constructor{
	kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(signal.New), kerneltest.Of(New), kerneltest.Of(cpu.New),
}

// TestCredentials carries threads with credentials of all kinds.
func TestCredentials(t *testing.T) {
	for name, userns := range map[string]bool{"host's users": false, "user namespace": true} {
		t.Run(name, func(t *testing.T) {
			kerneltest.RoundTrip(t, kerneltest.Program{
				Source: "testdata/credentials.c", Args: []string{"root"}, UserNamespace: userns, Generations: 4, LeaveRunning: true,
			}, all...)
		})
	}
}
