// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRules writes one file with one import into a tree and asks the real
// rules about it.
func TestRules(t *testing.T) {
	tests := []struct {
		file, imports string
		refused       string // part of the finding, "" where the import is fine
	}{
		{"cmd/migd/main.go", module + "shim", ""},
		{"shim/task.go", module + "runtime", ""},
		{"shim/task.go", module + "layers/request", ""},
		{"shim/task.go", module + "layers/kernel/cpu", "shim must not import layers/kernel/cpu"},
		{"shim/task.go", "github.com/containerd/containerd/v2/pkg/shim", ""},
		{"runtime/create.go", module + "shim", "runtime must not import shim"},
		{"runtime/create.go", "github.com/containerd/containerd/v2/core/mount", "runtime must not import"},
		{"runtime/create.go", "github.com/opencontainers/runc/libcontainer", ""},
		{"layers/control/event.go", module + "spec/record", ""},
		{"layers/control/event.go", module + "layers/kernel", "layers/control must not import layers/kernel"},
		{"layers/control/event.go", "golang.org/x/sys/unix", "layers/control must not import"},
		{"layers/kernel/cpu/cpu.go", module + "layers/kernel/tracer", ""},
		{"layers/kernel/cpu/cpu.go", module + "layers/kernel/memory", "layers/kernel/cpu must not import layers/kernel/memory"},
		{"layers/kernel/cpu/cpu_test.go", module + "layers/kernel/memory", ""},
		{"layers/kernel/cpu/cpu.go", module + "layers/medium", "layers/kernel/cpu must not import layers/medium"},
		{"layers/kernel/cpu/cpu.go", module + "layers/control", "layers/kernel/cpu must not import layers/control"},
		{"layers/medium/stream/stream.go", module + "layers/kernel", "layers/medium/stream must not import layers/kernel"},
		{"spec/image/image.go", module + "spec/record", ""},
		{"spec/record/record.go", module + "spec/image", "spec/record must not import spec/image"},
		{"spec/wire/wire_test.go", module + "cmd/mig", "nothing imports cmd"},
		{"hack/importcheck/main.go", module + "shim", ""},
	}
	for _, test := range tests {
		t.Run(test.file+"<-"+filepath.Base(test.imports), func(t *testing.T) {
			root := t.TempDir()
			name := filepath.Join(root, filepath.FromSlash(test.file))
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			source := "//go:build never\n\npackage p\n\nimport _ \"" + test.imports + "\"\n"
			if err := os.WriteFile(name, []byte(source), 0o644); err != nil {
				t.Fatal(err)
			}
			findings, err := check(root, rules)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(findings, "\n")
			if test.refused == "" && got != "" {
				t.Errorf("refused: %s", got)
			}
			if test.refused != "" && !strings.Contains(got, test.refused) {
				t.Errorf("got %q, want a finding with %q", got, test.refused)
			}
		})
	}
}

func TestBrokenFileIsAnError(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "spec"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "spec", "x.go"), []byte("packag"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := check(root, rules); err == nil {
		t.Fatal("a file that does not parse passed")
	}
}
