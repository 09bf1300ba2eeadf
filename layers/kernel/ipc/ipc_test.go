// SPDX-License-Identifier: Apache-2.0

package ipc_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/credential"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/ipc"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/task"
	"github.com/io-mig/mig/spec/record"
)

var all = []kerneltest.Constructor{
	kerneltest.Of(ipc.New), kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(file.New), kerneltest.Of(pipe.New),
	kerneltest.Of(credential.New), kerneltest.Of(signal.New), kerneltest.Of(cpu.New),
}

// TestObjects: programs find the objects of their IPC namespace by the ids and
// keys that they know, with what is in them.
func TestObjects(t *testing.T) {
	for name, p := range map[string]kerneltest.Program{
		"root":          {LeaveRunning: true},
		"user":          {UID: 1000, GID: 1000, Allowed: &kerneltest.Allowed{UID: 1000, GID: 1000, Bounding: 1<<41 - 1}},
		"userNamespace": {UserNamespace: true, Filtered: true},
	} {
		t.Run(name, func(t *testing.T) {
			p.Source, p.IPC, p.Generations = "testdata/objects.c", true, 3
			kerneltest.RoundTrip(t, p, all...)
		})
	}
}

// preflight is what the subsystem finds.
func preflight(t *testing.T, own bool, args ...string) (*kerneltest.Container, []record.Finding) {
	t.Helper()
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/objects.c", Args: args, IPC: true})
	source, err := target.NewSource(c.Pid, c.Freezer, c.Stdio)
	if err != nil {
		t.Fatal(err)
	}
	source.OwnIPC = own
	found, err := ipc.New(target.Env{Source: source}).Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c, found
}

// What cannot be read is refused by name, in the pre-flight and afterwards.
func TestUnreadableStateIsRefused(t *testing.T) {
	for kind, want := range map[string]string{
		"undo": "SEM_UNDO", "notify": "/jobs: a process is registered",
	} {
		t.Run(kind, func(t *testing.T) {
			c, found := preflight(t, true, kind)
			refused := slices.DeleteFunc(found, func(f record.Finding) bool { return f.Warning })
			if len(refused) != 1 || !strings.Contains(refused[0].What+": "+refused[0].Why, want) {
				t.Errorf("findings: %v", found)
			}
			if _, err := c.Export(true, all...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the export said: %v", err)
			}
			c.Verify()
		})
	}
}

// Threads share a list of adjustments, empty or not.
func TestThreadsAreWarnedOf(t *testing.T) {
	if _, found := preflight(t, true, "threads"); len(found) != 1 || !found[0].Warning {
		t.Errorf("findings: %v", found)
	}
}

// What belongs to a pod is there after the container's end.
func TestForeignNamespaceIsLeftAlone(t *testing.T) {
	if _, found := preflight(t, false, "undo"); len(found) > 0 {
		t.Errorf("findings: %v", found)
	}
}

// But not for a container that shares it and has some of it attached.
func TestForeignSegmentIsRefused(t *testing.T) {
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/objects.c", Args: []string{"host"}})
	if _, err := c.Export(true, all...); err == nil || !strings.Contains(err.Error(), "not the container's own") {
		t.Errorf("the export said: %v", err)
	}
	c.Verify()
}

// An image with IPC objects gets into no namespace that others use.
func TestSharedNamespaceIsNotFilled(t *testing.T) {
	p := kerneltest.Program{Source: "testdata/objects.c", IPC: true}
	c := kerneltest.Start(t, p)
	image, err := c.Export(false, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	other := kerneltest.Start(t, kerneltest.Program{Source: "testdata/objects.c", Args: []string{"none"}})
	other.Stop()
	if _, err := other.Import(image, all...); err == nil || !strings.Contains(err.Error(), "shares its IPC namespace") {
		t.Errorf("the import said: %v", err)
	}
}
