// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/pipe"
)

// withFiles are the subsystems that a program with open files needs.
var withFiles = append(slices.Clone(all), kerneltest.Of(file.New), kerneltest.Of(pipe.New))

// TestMappedObjects: files that no path leads to stay one file for all who map
// them or have them open.
func TestMappedObjects(t *testing.T) {
	for name, p := range map[string]kerneltest.Program{
		"root": {LeaveRunning: true},
		"user": {UID: 1000, GID: 1000, Allowed: &kerneltest.Allowed{UID: 1000, GID: 1000, Bounding: 1<<41 - 1}, Dynamic: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			p.Source, p.Args, p.Generations = "testdata/objects.c", []string{dir}, 3
			kerneltest.RoundTrip(t, p, withFiles...)
		})
	}
}

// TestRemovedExecutable: a program whose file was removed or replaced by an
// upgrade goes on with the file that it executes.
func TestRemovedExecutable(t *testing.T) {
	for _, user := range []int{0, 1000} {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		p := kerneltest.Program{Source: "testdata/objects.c", Args: []string{dir}, Dynamic: true, UID: user, GID: user}
		if user != 0 {
			p.Allowed = &kerneltest.Allowed{UID: uint32(user), GID: uint32(user), Bounding: 1<<41 - 1}
		}
		c := kerneltest.Start(t, p)
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(exe); err != nil {
			t.Fatal(err)
		}
		c.Verify()
		for range 2 {
			if c, err = c.Next(withFiles...); err != nil {
				t.Fatal(err)
			}
			c.Verify()
			now, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.Pid))
			if err != nil || !strings.HasSuffix(now, " (deleted)") {
				t.Errorf("it executes %q now: %v", now, err)
			}
		}
	}
}
