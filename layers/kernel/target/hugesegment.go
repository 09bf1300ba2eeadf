// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// System V shared memory of huge pages (SHM_HUGETLB) is a file of the kernel's own
// file system for huge pages of that size, and nobody tells of it: shmctl(2) shows no
// such mode, /proc/sysvipc/shm neither. What it shows as resident is 512 times too
// much (pages of 2 MB, Linux 6.18). A mapping of it shows its device, so what nobody
// has attached has to be attached.
//
// Source: ipc/shm.c, newseg and shm_add_rss_swap; fs/hugetlbfs/inode.c.

// HugeSegment is System V shared memory of huge pages.
type HugeSegment struct {
	ID int32
	// Size in bytes, of whole pages, and of a page.
	Size, Page uint64
}

// SegmentBytes is how many bytes a segment has that was made with size: whole pages
// of so many bytes, 0 for small ones.
func SegmentBytes(size, page uint64) uint64 {
	page = max(page, uint64(ContentGrain))
	return (size + page - 1) / page * page
}

// AttachedSegment is a segment that the engine has attached, for reading.
type AttachedSegment struct {
	// Path is a link of /proc that leads to its file until Detach.
	Path string
	// Page is the size of its huge pages in bytes, 0 if it has small ones.
	Page uint64

	at uintptr
}

const shmRDOnly = 0o10000 // SHM_RDONLY of include/uapi/linux/shm.h

// AttachSegment attaches a segment of the calling thread's IPC namespace, of which
// shmget(2) was told this size in bytes. It touches no page of it. The caller must
// Detach it.
func AttachSegment(id int32, size uint64) (*AttachedSegment, error) {
	sizes, err := HugeSizes()
	if err != nil {
		return nil, err
	}
	at, _, e := unix.Syscall(unix.SYS_SHMAT, uintptr(id), 0, shmRDOnly)
	if e != 0 {
		return nil, os.NewSyscallError("shmat", e)
	}
	a := &AttachedSegment{at: at}
	for _, page := range append([]uint64{0}, sizes...) {
		a.Path = fmt.Sprintf("/proc/self/map_files/%x-%x", at, uint64(at)+SegmentBytes(size, page))
		var st unix.Stat_t
		if err = unix.Stat(a.Path, &st); errors.Is(err, unix.ENOENT) {
			continue // it has other pages
		}
		if err == nil {
			a.Page, err = HugeDevice(procfs.Dev{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)})
		}
		break
	}
	if err != nil {
		a.Detach()
		return nil, fmt.Errorf("look at the attached segment: %w", err)
	}
	return a, nil
}

// Detach ends the attachment.
func (a *AttachedSegment) Detach() { _, _, _ = unix.Syscall(unix.SYS_SHMDT, a.at, 0, 0) }

// HugeSegments lists the System V shared memory of huge pages in the container's own
// IPC namespace. The container may run: they come and go.
func (s *Source) HugeSegments() (out []HugeSegment, err error) {
	if !s.OwnIPC {
		return nil, nil
	}
	err = InNamespace(s.proc.Process(s.Init).Path("ns/ipc"), func() error {
		list, err := s.proc.SysVShm()
		if errors.Is(err, fs.ErrNotExist) || len(list) == 0 { // a kernel without them
			return nil
		}
		if err == nil {
			out, err = s.hugeOf(list)
		}
		return err
	})
	if procfs.IsGone(err) {
		return nil, nil // it has ended
	}
	return out, err
}

// hugeOf are those of the segments, of the calling thread's namespace, that have huge
// pages. What a process has attached shows it. Of the rest a program could see that it
// is attached: where the system has no huge page at all it is left alone.
func (s *Source) hugeOf(list []procfs.SysVShm) (out []HugeSegment, err error) {
	known, err := s.attachedPages()
	if err != nil {
		return nil, err
	}
	some, err := hugePagesExist(hugePools)
	if err != nil {
		return nil, err
	}
	for i := range list {
		g := &list[i]
		page, ok := known[int32(g.ID)]
		if !ok && some {
			a, err := AttachSegment(int32(g.ID), g.Size)
			switch {
			case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EIDRM):
				continue // removed meanwhile
			case err != nil:
				return nil, fmt.Errorf("look at System V shared memory %d: %w", g.ID, err)
			}
			page = a.Page
			a.Detach()
		}
		if page > 0 {
			out = append(out, HugeSegment{ID: int32(g.ID), Size: SegmentBytes(g.Size, page), Page: page})
		}
	}
	return out, nil
}

// attachedPages are the sizes of the huge pages of attached segments, 0 for small
// ones, by their ids.
func (s *Source) attachedPages() (map[int32]uint64, error) {
	dev, err := ShmDevice()
	if err != nil {
		return nil, err
	}
	pids, err := s.Pids()
	if err != nil {
		return nil, err
	}
	known := map[int32]uint64{}
	for _, pid := range pids {
		maps, err := s.proc.Process(pid).Maps()
		if procfs.IsGone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", pid, err)
		}
		for i := range maps {
			m := &maps[i]
			if m.Kind != procfs.MapSysV {
				continue
			}
			page, err := HugeDevice(m.Dev)
			if err != nil {
				return nil, err
			}
			if page > 0 || m.Dev == dev {
				known[int32(m.Inode)] = page
			}
		}
	}
	return known, nil
}

// hugePagesExist reports whether any pool has a page.
func hugePagesExist(pools string) (bool, error) {
	sizes, err := hugeSizes(pools)
	for _, size := range sizes {
		path := filepath.Join(pools, fmt.Sprintf("hugepages-%dkB", size>>10), "nr_hugepages")
		b, err := os.ReadFile(path)
		if err != nil {
			return false, fmt.Errorf("look for huge pages: %w", err)
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return false, fmt.Errorf("%s: %w", path, err)
		}
		if n > 0 {
			return true, nil
		}
	}
	return false, err
}
