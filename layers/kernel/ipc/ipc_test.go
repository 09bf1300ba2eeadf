// SPDX-License-Identifier: Apache-2.0

package ipc_test

import (
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/ipc"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

func subsystem(t *testing.T, own bool, args ...string) *ipc.Subsystem {
	t.Helper()
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/objects.c", Args: args})
	source, err := target.NewSource(c.Pid, c.Freezer, c.Stdio)
	if err != nil {
		t.Fatal(err)
	}
	source.OwnIPC = own
	return ipc.New(target.Env{Source: source})
}

var shared = record.Step{Stage: record.StageResidual, Process: record.Shared}

func TestObjectsAreRefused(t *testing.T) {
	s := subsystem(t, true, t.TempDir())
	found, err := s.Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, f := range found {
		if f.Warning {
			t.Errorf("%s is a mere warning", f)
		}
		text += f.String() + "\n"
	}
	for _, want := range []string{"shared memory", "0x5eed, 8192 bytes", "semaphore set", "0x5eee", "System V message queue", "0x5eef", "POSIX message queue /jobs"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
	if len(found) != 4 {
		t.Errorf("%d findings: %s", len(found), text)
	}
	// As if they had been made after the pre-flight.
	if _, err := s.Checkpoint(t.Context(), shared, nil); err == nil || !strings.Contains(err.Error(), "shared memory") {
		t.Errorf("the export said: %v", err)
	}
}

func TestEmptyNamespaceIsCarried(t *testing.T) {
	s := subsystem(t, true)
	if found, err := s.Preflight(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("findings %v, error %v", found, err)
	}
	if _, err := s.Checkpoint(t.Context(), shared, nil); err != nil {
		t.Error(err)
	}
}

// What belongs to a pod is there after the container's end.
func TestForeignNamespaceIsLeftAlone(t *testing.T) {
	s := subsystem(t, false, t.TempDir())
	if found, err := s.Preflight(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("findings %v, error %v", found, err)
	}
}
