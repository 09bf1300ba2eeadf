// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/filetree"
	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// TestHostileHugeTrees: what an image may say of a tree of huge pages. This process is
// the container: what it has mounted is the host's.
func TestHostileHugeTrees(t *testing.T) {
	s := New(target.Env{Frame: &target.Frame{Init: os.Getpid()}})
	const tmpfs, huge = state.FileTreeKind_FILE_TREE_KIND_TMPFS, state.FileTreeKind_FILE_TREE_KIND_HUGETLBFS
	for name, m := range map[string]*state.FileTree{
		"without a size":        {Kind: huge},
		"a tmpfs of huge pages": {Kind: tmpfs, HugePageSize: 2 << 20},
		"a layer of them":       {Kind: state.FileTreeKind_FILE_TREE_KIND_LAYER, HugePageSize: 2 << 20},
	} {
		if _, err := s.openTree(m, "/dev/shm"); err == nil || !strings.Contains(err.Error(), "with pages of") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Of a container with a tmpfs and no hugetlbfs.
	mounts := []procfs.Mount{{ID: 1, Dev: procfs.Dev{Minor: 1 << 19}, FSType: "tmpfs", Root: "/", Target: "/run"}, {ID: 2, Dev: procfs.Dev{Minor: 1<<19 + 1}, FSType: "hugetlbfs", Root: "/", Target: "/huge"}}
	for path, m := range map[string]*state.FileTree{"/run": {Kind: huge, HugePageSize: 2 << 20}, "/huge": {Kind: tmpfs}} {
		if _, err := s.tmpfsTree(path, m, mounts, filetree.Policy{}); err == nil || !strings.Contains(err.Error(), "mounts no") {
			t.Errorf("%s as %s: %v", path, m.Kind, err)
		}
	}
}

// The pages of the file system have to be those of the image.
func TestHugePagesOfATree(t *testing.T) {
	if os.Getuid() != 0 || target.CheckHugeSize(2<<20) != nil {
		t.Skip("mounts a hugetlbfs with pages of 2 MB")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, hugeType, 0, "pagesize=2M"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if page, err := hugePageOf(root); err != nil || page != 2<<20 {
		t.Errorf("%d, %v", page, err)
	}
	if err := hasHugePages(root, 2<<20); err != nil {
		t.Error(err)
	}
	for _, page := range []uint64{1, 64 << 10, 1 << 30} {
		if err := hasHugePages(root, page); err == nil || !strings.Contains(err.Error(), "has pages of 2 MB") {
			t.Errorf("pages of %d: %v", page, err)
		}
	}
}
