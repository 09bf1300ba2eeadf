// SPDX-License-Identifier: Apache-2.0

package request

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// install puts a program in the place of another, as an upgrade does.
func install(t *testing.T, path, program string) {
	t.Helper()
	data, err := os.ReadFile(program)
	if err == nil {
		err = os.WriteFile(path+".new", data, 0o755)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestProgramOutlivesUpgrade(t *testing.T) {
	path := filepath.Join(t.TempDir(), ProgramName)
	install(t, path, "/bin/true")
	p, err := openProgram(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	install(t, path, "/bin/false")
	e := &ProcessEngine{Program: p}
	cmd := e.program()
	cmd.ExtraFiles = []*os.File{os.Stdin, os.Stdin, os.Stdin, os.Stdin, os.Stdin, os.Stdin, os.Stdin, os.Stdin, os.Stdin, os.Stdin}
	cmd.Stdout = io.Discard
	if err := cmd.Run(); err != nil {
		t.Errorf("the program that was open was not run: %v", err)
	}
	if cmd.Args[0] != path {
		t.Errorf("it is called %q", cmd.Args[0])
	}
}

func TestProgramMissing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, ProgramName)
	if _, err := openProgram(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "install it") {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, dir} {
		if _, err := openProgram(p); err == nil || !strings.Contains(err.Error(), "not an executable file") {
			t.Errorf("%s: %v", p, err)
		}
	}
}
