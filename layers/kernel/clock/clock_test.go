// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/clock"
	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/credential"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
	"github.com/io-mig/mig/layers/kernel/timer"
	"github.com/io-mig/mig/spec/state"
)

var all = []kerneltest.Constructor{
	kerneltest.Of(clock.New), kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(file.New),
	kerneltest.Of(pipe.New), kerneltest.Of(signal.New), kerneltest.Of(timer.New), kerneltest.Of(credential.New), kerneltest.Of(cpu.New),
}

// TestClocksGoOn: a container that was an image for two seconds does not see
// them, in any generation.
func TestClocksGoOn(t *testing.T) {
	for name, p := range map[string]kerneltest.Program{
		"root":           {Source: "testdata/clock.c"},
		"user namespace": {Source: "testdata/clock.c", UserNamespace: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := kerneltest.Start(t, p)
			for range 4 {
				c.Verify()
				image, err := c.Export(false, all...)
				if err != nil {
					t.Fatal(err)
				}
				c.Stop()
				time.Sleep(2 * time.Second)
				if c, err = c.Import(image, all...); err != nil {
					t.Fatal(err)
				}
				c.Verify()
			}
		})
	}
}

// TestAnotherHost: the clocks are the image's, whatever this host's are.
func TestAnotherHost(t *testing.T) {
	const ahead = 1_000_000 // seconds
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/clock.c", Args: []string{"-1000000"}})
	c.Verify()
	image, err := c.Export(false, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	for _, r := range image.Records {
		if r.Subsystem != clock.Name {
			continue
		}
		var m state.Clocks
		if err := proto.Unmarshal(r.Payload, &m); err != nil {
			t.Fatal(err)
		}
		m.Monotonic += ahead * int64(time.Second)
		m.Boottime += ahead * int64(time.Second)
		if r.Payload, err = proto.Marshal(&m); err != nil {
			t.Fatal(err)
		}
		if err := r.Seal(); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = c.Import(image, all...); err != nil {
		t.Fatal(err)
	}
	c.Verify()
}
