// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRefusedCheckpointLeavesNoDirectory: what was made goes, what was there or
// holds something stays.
func TestRefusedCheckpointLeavesNoDirectory(t *testing.T) {
	root := t.TempDir()
	there := filepath.Join(root, "there")
	if err := os.Mkdir(there, 0o700); err != nil {
		t.Fatal(err)
	}
	undo, err := makeDirectory(filepath.Join(there, "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	undo()
	if names, err := os.ReadDir(there); err != nil || len(names) != 0 {
		t.Errorf("left %v, %v", names, err)
	}
	if undo, err = makeDirectory(there); err != nil {
		t.Fatal(err)
	}
	undo()
	if _, err := os.Stat(there); err != nil {
		t.Errorf("a directory that was there is gone: %v", err)
	}
	full := filepath.Join(there, "full")
	if undo, err = makeDirectory(full); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	undo()
	if _, err := os.Stat(filepath.Join(full, "x")); err != nil {
		t.Errorf("somebody's file is gone: %v", err)
	}
}
