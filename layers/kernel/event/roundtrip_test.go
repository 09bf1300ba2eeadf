// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/event"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
)

var all = []kerneltest.Constructor{
	kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(file.New), kerneltest.Of(pipe.New),
	kerneltest.Of(event.New), kerneltest.Of(signal.New), kerneltest.Of(cpu.New),
}

// Programs verify after a restore what they have not looked at before, then
// everything again in the following generations.
func generations(t *testing.T, source string) {
	t.Helper()
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/" + source})
	image, err := c.Export(true, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Verify() // the original runs on unharmed
	c.Stop()
	if c, err = c.Import(image, all...); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.Verify()
		if c, err = c.Next(all...); err != nil {
			t.Fatal(err)
		}
	}
	c.Verify()
}

func TestCounters(t *testing.T) { generations(t, "counters.c") }
func TestTimers(t *testing.T)   { generations(t, "timers.c") }
func TestEpoll(t *testing.T)    { generations(t, "epoll.c") }

func TestUnsupportedIsRefusedByName(t *testing.T) {
	for _, kind := range []string{"fanotify"} {
		t.Run(kind, func(t *testing.T) {
			c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/unsupported.c", Args: []string{kind}})
			_, err := c.Export(true, all...)
			if err == nil || !strings.Contains(err.Error(), kind) || !strings.Contains(err.Error(), "fd 3") {
				t.Fatalf("export says: %v", err)
			}
			c.Verify()
		})
	}
}
