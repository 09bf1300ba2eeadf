// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// tmpfs mounts one of a size for the test.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("mig-fault-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("something still uses %s: %v", dir, err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return dir
}

// A disk that is too small: the container runs on, the message says why, and
// what was written is removed.
func TestFullDisk(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := h.run(t, "victim", 32, "")
	for name, options := range map[string]string{
		"at-once": "size=4k,nr_inodes=3", "in-the-state": "size=64k", "in-the-pages": "size=8m", "inodes": "size=64m,nr_inodes=2",
	} {
		t.Run(name, func(t *testing.T) {
			disk := tmpfs(t, options)
			for _, flags := range [][]string{nil, {"--exit"}} {
				dir := filepath.Join(disk, "image")
				result := v.checkpoint(dir, flags...)
				if result.Code == 0 || !strings.Contains(result.Stderr, "no space left on device") {
					t.Errorf("ctr says %v", result.Stderr)
				}
				v.runsOn("a full disk")
				empty(t, dir)
			}
		})
	}
	v.remove()
}

func TestReadOnlyImagePath(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := h.run(t, "victim", 4, "")
	disk := tmpfs(t, "size=64m")
	if err := os.Mkdir(filepath.Join(disk, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"there", "new"} {
		result := v.checkpoint(filepath.Join(disk, name), "--exit")
		if result.Code == 0 || !strings.Contains(result.Stderr, "read-only file system") {
			t.Errorf("%s: ctr says %s", name, result.Stderr)
		}
		v.runsOn("a refused path")
	}
	v.remove()
}

// A path that is taken. An image that is there already is never spoiled.
func TestTakenImagePath(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := h.run(t, "victim", 4, "")
	t.Run("file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		result := v.checkpoint(path)
		if result.Code == 0 || !strings.Contains(result.Stderr, "not a directory") {
			t.Errorf("ctr says %s", result.Stderr)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
			t.Errorf("the file is %q, %v", b, err)
		}
		v.runsOn("a refused path")
	})
	t.Run("image", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "image")
		if err := v.checkpoint(dir).Err(); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(filepath.Join(dir, "mig.manifest"))
		if err != nil {
			t.Fatal(err)
		}
		result := v.checkpoint(dir)
		v.runsOn("a second checkpoint to one path")
		after, err := os.ReadFile(filepath.Join(dir, "mig.manifest"))
		if err != nil {
			t.Fatal(err)
		}
		if result.Code != 0 && string(before) != string(after) {
			t.Errorf("the refused checkpoint has changed the image: %s", result.Stderr)
		}
		// Whichever it is, old or new: it is whole.
		if out, err := command(t.Context(), h.Tree.Bin("mig"), "verify", dir); err != nil {
			t.Errorf("mig verify: %v: %s", err, out)
		}
	})
	t.Run("other-files", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "mig.state"), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		result := v.checkpoint(dir)
		v.runsOn("a checkpoint into a directory with files")
		b, err := os.ReadFile(filepath.Join(dir, "mig.state"))
		if err != nil || result.Code != 0 && string(b) != "mine" {
			t.Errorf("ctr says %s; the file is %d bytes, %v", result.Stderr, len(b), err)
		}
	})
	v.remove()
}
