// SPDX-License-Identifier: Apache-2.0

package pipe_test

import (
	"os"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
)

var all = []kerneltest.Constructor{
	kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(file.New),
	kerneltest.Of(pipe.New), kerneltest.Of(signal.New), kerneltest.Of(cpu.New),
}

// restored exports a program before it was ever asked, so that it still has to
// read what is in its pipes, and asks original and copies.
func restored(t *testing.T, p kerneltest.Program, before func(*kerneltest.Container)) *kerneltest.Container {
	t.Helper()
	c := kerneltest.Start(t, p)
	if before != nil {
		before(c)
	}
	image, err := c.Export(true, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Verify() // what was copied was not taken
	c.Stop()
	n, err := c.Import(image, all...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPipes(t *testing.T) {
	c := restored(t, kerneltest.Program{Source: "testdata/pipes.c"}, nil)
	c.Verify()
	c.Verify()
	next, err := c.Next(all...)
	if err != nil {
		t.Fatal(err)
	}
	next.Verify()
}

func TestFIFO(t *testing.T) {
	dir := t.TempDir()
	c := restored(t, kerneltest.Program{Source: "testdata/fifo.c", Args: []string{dir}}, nil)
	c.Verify()
}

func TestPipeToOutsideIsRefused(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/outside.c"})
	defer c.Stop()
	_, err := c.Export(true, all...)
	if err == nil || !strings.Contains(err.Error(), "held by a process outside of the container") {
		t.Fatalf("export says: %v", err)
	}
	c.Verify()
}

func TestUnreadStandardInput(t *testing.T) {
	dir := t.TempDir()
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/lazy.c", Args: []string{dir}})
	c.Send("unread")
	n, err := c.Next(all...)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := n.Line(); s != "OK" {
		t.Fatal(s)
	}
}
