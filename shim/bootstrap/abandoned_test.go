// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestRemoveAbandoned: the remains of an earlier bundle go, and only they.
func TestRemoveAbandoned(t *testing.T) {
	dir := t.TempDir()
	make := func(path ...string) string {
		t.Helper()
		full := filepath.Join(append([]string{dir}, path...)...)
		if err := os.MkdirAll(full, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(full, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return full
	}
	bundle, work := make("state", "web"), make("root", "web")
	if err := RemoveAbandoned(bundle); err != nil {
		t.Errorf("nothing is left, and no link: %v", err)
	}
	if err := os.Symlink(work, filepath.Join(bundle, "work")); err != nil {
		t.Fatal(err)
	}
	gone := []string{make("state", ".web"), make("root", ".web")}
	kept := []string{bundle, work, make("state", ".other"), make("state", "..web"), make("root", "other")}
	if err := RemoveAbandoned(bundle); err != nil {
		t.Error(err)
	}
	for _, path := range gone {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want that it is gone", path, err)
		}
	}
	for _, path := range kept {
		if _, err := os.Lstat(filepath.Join(path, "file")); err != nil {
			t.Error(err)
		}
	}
}
