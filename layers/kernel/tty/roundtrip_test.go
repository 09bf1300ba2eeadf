// SPDX-License-Identifier: Apache-2.0

package tty_test

import (
	"testing"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/credential"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/socket"
	"github.com/io-mig/mig/layers/kernel/task"
	"github.com/io-mig/mig/layers/kernel/tty"
)

var all = []kerneltest.Constructor{
	kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(file.New), kerneltest.Of(tty.New),
	kerneltest.Of(pipe.New), kerneltest.Of(socket.New), kerneltest.Of(signal.New), kerneltest.Of(credential.New), kerneltest.Of(cpu.New),
}

// TestPairs: terminals of which both ends are in the container, with a session,
// its jobs, and ends in every state.
func TestPairs(t *testing.T) {
	for name, p := range map[string]kerneltest.Program{
		"plain":          {Generations: 3, LeaveRunning: true},
		"user namespace": {Generations: 2, UserNamespace: true, Filtered: true},
		"user": {
			Generations: 2, LeaveRunning: true, UID: 1000, GID: 1000, Args: []string{"user"},
			Allowed: &kerneltest.Allowed{UID: 1000, GID: 1000, Bounding: 1<<41 - 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.Source, p.Devpts = "testdata/pairs.c", true
			kerneltest.RoundTrip(t, p, all...)
		})
	}
}
