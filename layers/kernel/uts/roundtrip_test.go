// SPDX-License-Identifier: Apache-2.0

package uts_test

import (
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
	"github.com/io-mig/mig/layers/kernel/uts"
)

var all = []kerneltest.Constructor{
	kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(uts.New), kerneltest.Of(signal.New), kerneltest.Of(cpu.New),
}

func TestNames(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/names.c", UTS: true, Generations: 2, LeaveRunning: true}, all...)
}

// TestNamesOfWhoMayNot: an image brings no name into a container that could not
// set it.
func TestNamesOfWhoMayNot(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/names.c", UTS: true, Allowed: &kerneltest.Allowed{NoNewPrivileges: true}})
	image, err := c.Export(false, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	next, err := c.Import(image, all...)
	if err != nil {
		t.Fatal(err)
	}
	next.Send("v")
	if s := next.Line(); !strings.Contains(s, "host name") {
		t.Errorf("the copy says %q: it has the changed name", s)
	}
}
