// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
)

// hugeType is the file system of huge pages. Its files have whole pages and are written
// to by mmap(2) only; what is read of a hole is zero, and nobody tells of holes.
//
// Source: Documentation/admin-guide/mm/hugetlbpage.rst; fs/hugetlbfs/inode.c.
const hugeType = "hugetlbfs"

// hugePageOf is the size in bytes of the pages of a hugetlbfs.
func hugePageOf(root *os.File) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	return uint64(st.Bsize), nil
}

// hasHugePages says that a hugetlbfs has not the pages that an image's has.
func hasHugePages(root *os.File, page uint64) error {
	here, err := hugePageOf(root)
	if err == nil && here != page {
		return fmt.Errorf("the hugetlbfs there has pages of %s, and had %s when the image was made: mount it with pagesize=%dk", target.HugeName(here), target.HugeName(max(page, 1<<10)), page>>10)
	}
	return err
}

// hugeWriter writes files of a hugetlbfs. The container's first process allocates
// their pages, which are charged to the cgroup of who does.
type hugeWriter struct {
	frame *target.Frame
	page  uint64

	file *os.File // that the task has open as fd
	fd   int
	// mapped is the page from an offset on that was written to last.
	mapped []byte
	from   int64
}

// open gives the task a descriptor of f, unless it has one.
func (w *hugeWriter) open(f *os.File) (*target.Task, error) {
	t := w.frame.Task(target.FirstTask)
	if t == nil || t.Traced == nil {
		return nil, fmt.Errorf("process %d: %w", target.FirstTask, target.ErrNotStopped)
	}
	if w.file == f {
		return t, nil
	}
	fds, err := t.Accept([]*os.File{f})
	if err != nil {
		return nil, err
	}
	w.file, w.fd = f, fds[0]
	return t, nil
}

// WriteAt implements filetree.Writer.
func (w *hugeWriter) WriteAt(f *os.File, b []byte, at int64) error {
	t, err := w.open(f)
	if err != nil {
		return err
	}
	for page := int64(w.page); len(b) > 0; {
		if from := at / page * page; w.mapped == nil || w.from != from {
			if err := w.remap(t, from); err != nil {
				return err
			}
		}
		n := copy(w.mapped[at-w.from:], b)
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// remap maps another page.
func (w *hugeWriter) remap(t *target.Task, from int64) (err error) {
	if err := w.unmap(); err != nil {
		return err
	}
	w.from = from
	w.mapped, err = t.MapHuge(w.fd, w.page, uint64(from), w.page)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("%s, or more room on the file system: %w", target.WantedHuge(w.page, 1), err)
	}
	return err
}

func (w *hugeWriter) unmap() error {
	m := w.mapped
	if w.mapped = nil; m == nil {
		return nil
	}
	return os.NewSyscallError("munmap", unix.Munmap(m))
}

// Hole implements filetree.Holer. Of parts of pages older kernels keep what they hold
// (before Linux 5.19).
func (w *hugeWriter) Hole(f *os.File, at, length int64) error {
	page := int64(w.page)
	first, last := (at+page-1)/page*page, (at+length)/page*page
	if first >= last { // no whole page
		return w.zero(f, at, at+length)
	}
	// A write to a page that is gone would have the engine allocate it.
	if err := w.unmap(); err != nil {
		return err
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, first, last-first)
	if err != nil {
		return os.NewSyscallError("fallocate", err)
	}
	return errors.Join(w.zero(f, at, first), w.zero(f, last, at+length))
}

// zero writes zeroes; what it is called for was written to before.
func (w *hugeWriter) zero(f *os.File, from, to int64) error {
	for zeros := make([]byte, min(to-from, writeBytes)); from < to; {
		n := min(to-from, int64(len(zeros)))
		if err := w.WriteAt(f, zeros[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// Close implements filetree.Writer.
func (w *hugeWriter) Close(f *os.File) error {
	if w.file != f {
		return nil
	}
	if err := w.unmap(); err != nil {
		return err
	}
	w.file = nil
	t := w.frame.Task(target.FirstTask)
	if t == nil || t.Traced == nil {
		return fmt.Errorf("process %d: %w", target.FirstTask, target.ErrNotStopped)
	}
	p := t.Plan()
	p.Close(w.fd)
	return p.Run()
}
