// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/credential"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
)

var all = []kerneltest.Constructor{
	kerneltest.Of(memory.New), kerneltest.Of(task.New), kerneltest.Of(credential.New), kerneltest.Of(signal.New), kerneltest.Of(cpu.New),
}

// A forged image may not map what the container's user could not open.
func TestForgedMappingIsOpenedAsTheUser(t *testing.T) {
	kerneltest.NeedRoot(t)
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "secret")
	if err := os.WriteFile(name, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(name, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	user := &kerneltest.Allowed{UID: 1000, GID: 1000, Groups: []uint32{1000}, Bounding: 1<<41 - 1}
	c := kerneltest.Start(t, kerneltest.Program{Source: "testdata/mapped.c", Args: []string{name}, UID: 1000, GID: 1000, Allowed: user})
	image, err := c.Export(false, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	n, err := c.Import(image, all...)
	if err != nil {
		t.Fatal(err)
	}
	n.Verify()
	n.Stop()
	if err := errors.Join(os.Chown(name, 0, 0), os.Chmod(name, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Import(image, all...); !errors.Is(err, unix.EACCES) {
		t.Fatalf("the import of a mapping of root's file by uid 1000 said: %v", err)
	}
}
