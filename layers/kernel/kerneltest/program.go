// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kerneltest

import (
	"embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Program is what a test runs and how.
type Program struct {
	// Source is a C file, or a directory with a Go main package.
	Source string
	// Args are the program's arguments.
	Args []string
	// UID and GID it starts with. Its frame starts as root all the same.
	UID, GID int
	// UserNamespace gives it, and its frames, one of its own.
	UserNamespace bool
	// Dynamic links a C program against the shared libc.
	Dynamic bool
	// Generations is how often it is exported and imported; 0 means once.
	Generations int
	// LeaveRunning also lets the original of each export run on and verify
	// itself before the copy is made.
	LeaveRunning bool
	// Filtered loads a seccomp filter before it starts, as a runtime does, and
	// in its frames. It denies what a restore needs and the program does not.
	Filtered bool
	// SeccompFilters are those that it may have loaded: see target.Source.
	SeccompFilters int
	// Tmpfs is a directory on which the container, and each of its frames,
	// mounts a tmpfs of its own, as a runtime does for a spec that says so.
	Tmpfs string
	// IPC gives it, and its frames, an IPC namespace of their own.
	IPC bool
	// UTS likewise a UTS namespace, which begins with the machine's names.
	UTS bool
	// Devpts mounts a devpts of its own on /dev/pts, in the same way.
	Devpts bool
	// Allowed is what imports may ask for; nil means Root().
	Allowed *Allowed
}

//go:embed kerneltest.h
var header embed.FS

// build compiles the program and returns its path, which any user may read.
func (p *Program) build(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, strings.TrimSuffix(filepath.Base(p.Source), ".c"))
	cmd := exec.Command("go", "build", "-o", out, "./"+p.Source)
	if strings.HasSuffix(p.Source, ".c") {
		text, err := header.ReadFile("kerneltest.h")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "kerneltest.h"), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command("gcc", "-O1", "-g", "-Wall", "-I"+dir, "-pthread", "-o", out, p.Source)
		if !p.Dynamic {
			cmd.Args = append(cmd.Args, "-static")
		}
	} else {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", p.Source, err, b)
	}
	return out
}
