// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// HugeTree is a hugetlbfs that only the container has.
type HugeTree struct {
	Dev procfs.Dev
	// Page is the size of its pages, Least what it keeps reserved in all (min_size), in
	// bytes.
	Page, Least uint64
	// Files are bytes that are there, by inode.
	Files map[uint64]uint64
}

// HugeTrees lists them. The container may run: files come and go.
func (s *Source) HugeTrees() (out []HugeTree, err error) {
	mounts, err := s.proc.Process(s.Init).Mountinfo()
	if procfs.IsGone(err) {
		return nil, nil // it has ended
	}
	if err != nil || !slices.ContainsFunc(mounts, func(m procfs.Mount) bool { return m.FSType == "hugetlbfs" }) {
		return nil, err
	}
	host, err := HostDevices()
	if err != nil {
		return nil, err
	}
	seen := map[procfs.Dev]bool{}
	for _, m := range mounts {
		if m.FSType != "hugetlbfs" || m.Root != "/" || host[m.Dev] || seen[m.Dev] {
			continue
		}
		seen[m.Dev] = true
		t, err := s.hugeTree(m)
		if errors.Is(err, fs.ErrNotExist) {
			continue // unmounted meanwhile, or hidden
		}
		if err != nil {
			return nil, fmt.Errorf("hugetlbfs %s: %w", m.Target, err)
		}
		out = append(out, t)
	}
	return out, nil
}

func (s *Source) hugeTree(m procfs.Mount) (t HugeTree, err error) {
	t = HugeTree{Dev: m.Dev, Least: leastOf(m.SuperOptions), Files: map[uint64]uint64{}}
	dir, err := OpenMount(s.Init, m.Target)
	if err != nil {
		return t, err
	}
	defer dir.Close()
	var on unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &on); err != nil {
		return t, os.NewSyscallError("fstatfs", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return t, os.NewSyscallError("fstat", err)
	}
	if on.Type != unix.HUGETLBFS_MAGIC || st.Dev != m.Dev.Stat() {
		return t, fs.ErrNotExist // something else is mounted there, or over it
	}
	t.Page = uint64(on.Bsize)
	// What is moved about meanwhile does not lead out of it.
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return t, err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Blocks > 0 {
			const block = 512 // stat(2)
			t.Files[st.Ino] = uint64(st.Blocks) * block
		}
		return nil
	})
	return t, err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// leastOf is min_size of a mount's options.
func leastOf(options []string) uint64 {
	for _, o := range options {
		if v, ok := strings.CutPrefix(o, "min_size="); ok {
			n, err := strconv.ParseUint(v, 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}
