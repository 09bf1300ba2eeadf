// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/io-mig/mig/spec/image"
)

// TestClear: remains go, everything else stays.
func TestClear(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(names ...string) {
		for _, n := range names {
			if err := os.WriteFile(filepath.Join(dir, n), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func() (n int) {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	write(image.StateName, "mig.pages-1", "notes.txt")
	d, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.lock(); err != nil {
		t.Fatal(err)
	}
	if err := Clear(dir); err != nil || left() != 3 {
		t.Errorf("while somebody writes: %v, %d files", err, left())
	}
	d.Close()
	if err := Clear(dir); err != nil || left() != 1 {
		t.Errorf("remains: %v, %d files", err, left())
	}
	write(image.ManifestName, image.StateName)
	if err := Clear(dir); err != nil || left() != 3 {
		t.Errorf("a whole image: %v, %d files", err, left())
	}
	if err := Clear(filepath.Join(dir, "none")); err != nil {
		t.Errorf("no directory: %v", err)
	}
}
