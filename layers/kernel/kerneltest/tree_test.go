// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest_test

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/event"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/socket"
	"github.com/io-mig/mig/layers/kernel/task"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// whole are all subsystems.
var whole = append(slices.Clone(everything),
	kerneltest.Of(file.New), kerneltest.Of(pipe.New), kerneltest.Of(socket.New), kerneltest.Of(event.New))

func TestTrees(t *testing.T) {
	for _, name := range []string{"wide", "deep", "sessions", "daemons", "reapers"} {
		t.Run(name, func(t *testing.T) {
			kerneltest.RoundTrip(t, kerneltest.Program{
				Source: "testdata/tree.c", Args: []string{name}, Generations: many(4), LeaveRunning: true,
			}, whole...)
		})
	}
}

func TestTreeOfAUser(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{
		Source: "testdata/tree.c", Args: []string{"daemons"}, Generations: 2, UID: 1000, GID: 1000, Dynamic: true,
		Allowed: &kerneltest.Allowed{UID: 1000, GID: 1000, Bounding: 1<<41 - 1},
	}, whole...)
}

func TestTreeInAUserNamespace(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{
		Source: "testdata/tree.c", Args: []string{"daemons"}, Generations: 2, UserNamespace: true, Filtered: true,
	}, whole...)
}

func TestFamily(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{
		Source: "testdata/family.c", Args: []string{filepath.Join(t.TempDir(), "file")}, Generations: many(10),
	}, whole...)
}

func TestFamilyLeftRunning(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/family.c", Args: []string{filepath.Join(t.TempDir(), "file")}})
	for range many(30) {
		if _, err := c.Export(true, whole...); err != nil {
			t.Fatal(err)
		}
		c.Verify()
	}
}

func TestZombies(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/zombies.c", Generations: 3, LeaveRunning: true}, whole...)
}

func TestPrefork(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/prefork.c", Generations: many(5)}, whole...)
}

func TestSharedMemory(t *testing.T) {
	for _, leave := range []bool{false, true} {
		kerneltest.RoundTrip(t, kerneltest.Program{Source: "testdata/shared.c", Generations: many(5), LeaveRunning: leave}, whole...)
	}
}

// TestPipeline: a shell that starts a program again and again, by vfork with
// some shells, and another that reads what it says. Not a line gets lost or
// comes twice.
func TestPipeline(t *testing.T) {
	script := `i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done | cat`
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/exec.c", Args: []string{"/bin/sh", "sh", "-c", script}})
	next := 1
	read := func(c *kerneltest.Container, s string) {
		if s != strconv.Itoa(next) {
			t.Fatalf("line %q where %d is next", s, next)
		}
		next++
	}
	for range many(10) {
		for range 5 {
			read(c, c.Line())
		}
		image, err := c.Export(false, whole...)
		if err != nil {
			t.Fatal(err)
		}
		c.Stop()
		for _, s := range c.Rest() {
			read(c, s)
		}
		if c, err = c.Import(image, whole...); err != nil {
			t.Fatal(err)
		}
	}
	read(c, c.Line())
}

// TestForkStorm: processes that come and go are neither harmed nor waited for
// in vain.
func TestForkStorm(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/storm.c"})
	for range many(150) {
		if _, err := c.Export(true, whole...); err != nil {
			t.Fatal(err)
		}
		c.Verify()
	}
	for range many(10) {
		var err error
		if c, err = c.Next(whole...); err != nil {
			t.Fatal(err)
		}
		c.Verify()
	}
}

// TestNamespacesAreRefused: what a fork does not make is named, and nothing is
// touched.
func TestNamespacesAreRefused(t *testing.T) {
	for kind, want := range map[string]string{
		"mounts": "another mnt namespace", "hostname": "another uts namespace",
	} {
		t.Run(kind, func(t *testing.T) {
			c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/clones.c", Args: []string{kind}})
			_, err := c.Export(true, whole...)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("%v, want %q", err, want)
			}
			c.Verify()
		})
	}
}

// TestBrokenTree: an import that fails when the processes exist ends them all;
// the image is good for another one.
func TestBrokenTree(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/tree.c", Args: []string{"wide"}})
	image, err := c.Export(false, whole...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	for _, subsystem := range []string{"memory", "file", "cpu"} {
		broken := *image
		last := -1
		for i, r := range image.Records {
			if r.Subsystem == subsystem && r.Process > 9 {
				last = i
			}
		}
		broken.Records = slices.Delete(slices.Clone(image.Records), last, last+1)
		if subsystem == "memory" { // a page more or less is nobody's business: cut it off here
			broken.Records = broken.Records[:last]
		}
		if subsystem == "file" {
			broken.Records = slices.DeleteFunc(broken.Records, func(r *record.Record) bool { return r.Subsystem == subsystem && r.Process == 7 })
		}
		if _, err := c.Import(&broken, whole...); err == nil {
			t.Errorf("an image that lacks records of %s was imported", subsystem)
		}
	}
	again, err := c.Import(image, whole...)
	if err != nil {
		t.Fatal(err)
	}
	again.Verify()
}

// TestSharedDirectories: who has a working directory in common has it again.
func TestSharedDirectories(t *testing.T) {
	kerneltest.RoundTrip(t, kerneltest.Program{
		Source: "testdata/directories.c", Args: []string{t.TempDir(), t.TempDir()}, Generations: 3, LeaveRunning: true,
	}, whole...)
}

// TestSharedTable: who has a descriptor table in common has it again, and an image
// cannot give such a process another one besides.
func TestSharedTable(t *testing.T) {
	p := kerneltest.Program{Source: "testdata/clones.c", Args: []string{"descriptors"}, Generations: 3, LeaveRunning: true}
	kerneltest.RoundTrip(t, p, whole...)
	c := kerneltest.Start(t, p)
	image, err := c.Export(false, whole...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	payload, err := proto.Marshal(&state.DescriptorTable{Slot: []*state.DescriptorSlot{{Fd: 5, Description: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	forged := *image
	forged.Records = slices.Clone(image.Records)
	for i, r := range forged.Records {
		if r.Subsystem == file.Name && r.Kind == file.KindTable && r.Process == 2 {
			forged.Records[i] = &record.Record{Header: r.Header, Payload: payload}
			if err := forged.Records[i].Seal(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := c.Import(&forged, whole...); err == nil || !strings.Contains(err.Error(), "it has descriptors of its own, and those of the process that made it") {
		t.Errorf("a second table: %v", err)
	}
}

// TestOneMemory: who has its memory, and its signal handlers, in common with its
// parent has them again. Neither can an image give it other memory besides, nor can one
// that lacks what is in common be read.
func TestOneMemory(t *testing.T) {
	for _, kind := range []string{"memory", "handlers"} {
		p := kerneltest.Program{Source: "testdata/clones.c", Args: []string{kind}, Generations: 3, LeaveRunning: true}
		kerneltest.RoundTrip(t, p, whole...)
	}
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/clones.c", Args: []string{"memory"}})
	image, err := c.Export(false, whole...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	records := func(change func(*record.Record) []*record.Record) *kerneltest.Image {
		forged := *image
		forged.Records = nil
		for _, r := range image.Records {
			forged.Records = append(forged.Records, change(r)...)
		}
		return &forged
	}
	besides := records(func(r *record.Record) []*record.Record {
		if r.Subsystem != memory.Name || r.Process != 1 || r.Kind != memory.KindAddressSpace {
			return []*record.Record{r}
		}
		other := &record.Record{Header: r.Header, Payload: r.Payload}
		other.Process = 2
		if err := other.Seal(); err != nil {
			t.Fatal(err)
		}
		return []*record.Record{r, other}
	})
	if _, err := c.Import(besides, whole...); err == nil || !strings.Contains(err.Error(), "process 2 has the memory of process 1") {
		t.Errorf("memory besides: %v", err)
	}
	lacking := records(func(r *record.Record) []*record.Record {
		if r.Subsystem == task.Name && r.Kind == task.KindSharing {
			return nil
		}
		return []*record.Record{r}
	})
	if len(lacking.Records) != len(image.Records)-1 {
		t.Errorf("%d records of what is in common", len(image.Records)-len(lacking.Records))
	}
	if _, err := c.Import(lacking, whole...); err == nil {
		t.Error("a process without memory was made")
	}
	again, err := c.Import(image, whole...)
	if err != nil {
		t.Fatal(err)
	}
	again.Verify()
}
