// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/io-mig/mig/layers/medium/mediumtest"
	"golang.org/x/sys/unix"
)

// smallDisk mounts a tmpfs of 2 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=2m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
	return path
}

// TestFullDisk: the error says what was missing and nothing is left, whether
// the room ends in a large payload, a small one, or at Flush.
func TestFullDisk(t *testing.T) {
	for _, size := range []int{256 << 10, 30_000} {
		disk := smallDisk(t)
		path := filepath.Join(disk, "image")
		w := newWriter(t, path, Options{})
		var err error
		for i := 0; err == nil && i < 1000; i++ {
			err = w.PushData(t.Context(), mediumtest.Record(i, size))
		}
		var full *FullError
		if !errors.As(err, &full) || !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("records of %d bytes: %v, want a FullError", size, err)
		}
		if full.Needed <= 0 || !strings.HasPrefix(full.File, path+"/mig.") || !strings.Contains(err.Error(), "free space") {
			t.Errorf("the error lacks file, bytes or remedy: %v", err)
		}
		if again := w.PushData(t.Context(), mediumtest.Record(1, 10)); !errors.Is(again, unix.ENOSPC) {
			t.Errorf("a push after the failure: %v, want the same error", again)
		}
		if again := w.Flush(t.Context()); !errors.Is(again, unix.ENOSPC) {
			t.Errorf("a flush after the failure: %v, want the same error", again)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if left := names(t, disk); left != "" {
			t.Errorf("left behind: %s", left)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil || st.Bfree < st.Blocks-1 {
			t.Errorf("%d of %d blocks are free after Close (%v)", st.Bfree, st.Blocks, err)
		}
	}
}

// TestFullDiskAtFlush: the room ends only when buffered records are written.
func TestFullDiskAtFlush(t *testing.T) {
	disk := smallDisk(t)
	if err := os.WriteFile(filepath.Join(disk, "ballast"), make([]byte, 2<<20-8192), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(disk, "image")
	w := newWriter(t, path, Options{})
	for i := range 4 {
		if err := w.PushData(t.Context(), mediumtest.Record(i, 30_000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(t.Context()); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("flush: %v, want ENOSPC", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if left := names(t, disk); left != "ballast" {
		t.Errorf("left behind: %s", left)
	}
}
