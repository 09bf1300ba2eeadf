// SPDX-License-Identifier: Apache-2.0

package target

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What of a hugetlbfs is not carried is named, and a file is known to be on one.
func TestHugeFilesOfTheHost(t *testing.T) {
	if os.Getuid() != 0 || CheckHugeSize(2<<20) != nil {
		t.Skip("mounts a hugetlbfs with pages of 2 MB")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "hugetlbfs", 0, "pagesize=2M"); err != nil {
		t.Fatal(err)
	}
	mounted := true
	unmount := func() {
		if mounted {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
		mounted = false
	}
	defer unmount()
	path := filepath.Join(dir, "x")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	look := func() (st unix.Stat_t) {
		t.Helper()
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	st := look()
	if page, err := OnHugetlbfs(path, &st); err != nil || page != 2<<20 {
		t.Errorf("pages of %d, %v", page, err)
	}
	if why, err := RefuseHugeFile(&st); err != nil || !strings.Contains(why, "of the host") {
		t.Errorf("a file of the host: %q, %v", why, err)
	}
	other := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var small unix.Stat_t
	if err := unix.Stat(other, &small); err != nil {
		t.Fatal(err)
	}
	small.Blksize = 1 << 20 // as some file systems have it
	if page, err := OnHugetlbfs(other, &small); err != nil || page != 0 {
		t.Errorf("a file elsewhere has pages of %d, %v", page, err)
	}
	unmount() // now nobody sees it but by descriptors
	if why, err := RefuseHugeFile(&st); err != nil || why != "" {
		t.Errorf("a file of a container: %q, %v", why, err)
	}
	if err := os.Remove(f.Name()); err == nil {
		t.Fatal("the file is there still")
	}
	st.Nlink = 0
	if why, err := RefuseHugeFile(&st); err != nil || !strings.Contains(why, "has no name") {
		t.Errorf("a file without a name: %q, %v", why, err)
	}
}

func TestLeastOf(t *testing.T) {
	for want, options := range map[uint64][]string{0: {"rw", "pagesize=2M"}, 4194304: {"rw", "size=8388608", "min_size=4194304"}} {
		if got := leastOf(options); got != want {
			t.Errorf("%q: %d", options, got)
		}
	}
	if got := leastOf([]string{"min_size=2M"}); got != 0 { // the kernel shows bytes
		t.Errorf("%d", got)
	}
}
