// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// Memory of huge pages (MAP_HUGETLB, MFD_HUGETLB) comes out of a pool for each
// size of them. Each size has a file system of the kernel's own, by whose device it
// is known.
//
// Source: Documentation/admin-guide/mm/hugetlbpage.rst; fs/hugetlbfs/inode.c.

// hugePools has a directory hugepages-NkB for each size that the kernel has.
const hugePools = "/sys/kernel/mm/hugepages"

// hugeDevices are the sizes of huge pages, in bytes, by device.
var hugeDevices = sync.OnceValues(func() (map[procfs.Dev]uint64, error) {
	sizes, err := hugeSizes(hugePools)
	if err != nil {
		return nil, err
	}
	devices := map[procfs.Dev]uint64{}
	for _, size := range sizes {
		// An empty file takes no page.
		fd, err := unix.MemfdCreate("mig", unix.MFD_CLOEXEC|unix.MFD_HUGETLB|HugeFlag(size))
		if err != nil {
			continue // a size of which the kernel could not mount its file system
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err != nil {
			return nil, os.NewSyscallError("fstat", err)
		}
		devices[procfs.Dev{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)}] = size
	}
	return devices, nil
})

// HugeDevice returns the size in bytes of the huge pages of what lies on a device,
// 0 if it is none of the kernel's own for huge pages.
func HugeDevice(dev procfs.Dev) (uint64, error) {
	devices, err := hugeDevices()
	return devices[dev], err
}

// HugeSizes are the sizes in bytes of huge pages that this kernel has.
func HugeSizes() ([]uint64, error) {
	devices, err := hugeDevices()
	return slices.Sorted(maps.Values(devices)), err
}

// CheckHugeSize says that this kernel lacks huge pages of so many bytes.
func CheckHugeSize(size uint64) error {
	sizes, err := HugeSizes()
	if err != nil || slices.Contains(sizes, size) {
		return err
	}
	return fmt.Errorf("this kernel has no huge pages of %s (hugepagesz= at its start gives it other sizes)", HugeName(size))
}

// ValidHugeSize says that it could be a size of huge pages of some kernel.
func ValidHugeSize(size uint64) bool {
	const least, most = 64 << 10, 16 << 30
	return size >= least && size <= most && size&(size-1) == 0
}

// HugeFlag is a size in the flags of mmap(2), memfd_create(2) and shmget(2), beside
// the flag that asks for huge pages.
func HugeFlag(size uint64) int { return bits.TrailingZeros64(size) << unix.MAP_HUGE_SHIFT }

// HugeName is a size as people write it.
func HugeName(size uint64) string {
	switch {
	case size%(1<<30) == 0:
		return fmt.Sprintf("%d GB", size>>30)
	case size%(1<<20) == 0:
		return fmt.Sprintf("%d MB", size>>20)
	}
	return fmt.Sprintf("%d kB", size>>10)
}

// HugeFree is how many huge pages of so many bytes somebody who asks for them now is
// given: those that are free and not reserved, and those that the system may add.
func HugeFree(size uint64) (uint64, error) { return hugeFree(hugePools, size) }

// WantedHuge says how many huge pages were asked for and are free, for a person.
func WantedHuge(size, pages uint64) string {
	free := "unknown"
	if n, err := HugeFree(size); err == nil {
		free = fmt.Sprint(n)
	}
	return fmt.Sprintf("%d huge pages of %s are needed, free are %s (add some: /sys/kernel/mm/hugepages/hugepages-%dkB/nr_hugepages)", pages, HugeName(size), free, size>>10)
}

func hugeFree(pools string, size uint64) (uint64, error) {
	dir := filepath.Join(pools, fmt.Sprintf("hugepages-%dkB", size>>10))
	var n [4]uint64
	for i, name := range []string{"free_hugepages", "resv_hugepages", "nr_overcommit_hugepages", "surplus_hugepages"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return 0, fmt.Errorf("look for free huge pages: %w", err)
		}
		if n[i], err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err != nil {
			return 0, fmt.Errorf("%s in %s: %w", name, dir, err)
		}
	}
	free, reserved, overcommit, surplus := n[0], n[1], n[2], n[3]
	return free - min(free, reserved) + overcommit - min(overcommit, surplus), nil
}

// hugeSizes lists the pools; a kernel without huge pages has none.
func hugeSizes(pools string) (sizes []uint64, err error) {
	list, err := os.ReadDir(pools)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range list {
		name, ok := strings.CutPrefix(e.Name(), "hugepages-")
		kb, has := strings.CutSuffix(name, "kB")
		n, err := strconv.ParseUint(kb, 10, 32)
		if ok && has && err == nil && ValidHugeSize(n<<10) {
			sizes = append(sizes, n<<10)
		}
	}
	return sizes, err
}

// IsMemfd says that the object was made by memfd_create(2).
func IsMemfd(o *state.FileObject) bool { return o.Memfd || o.HugePageSize > 0 }

// SetHuge makes a memfd's description that of one of huge pages, if its device is one
// of theirs.
func SetHuge(o *state.FileObject, st *unix.Stat_t) error {
	size, err := HugeDevice(procfs.Dev{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)})
	if err == nil && size > 0 {
		o.Memfd, o.HugePageSize = false, size
	}
	return err
}

// WriteHuge writes to a file of huge pages, which has no write(2), by MapHuge.
func (t *Task) WriteHuge(fd int, size, offset uint64, data []byte) error {
	start, end := offset&^(size-1), (offset+uint64(len(data))+size-1)&^(size-1)
	m, err := t.MapHuge(fd, size, start, end-start)
	if err != nil {
		return err
	}
	copy(m[offset-start:], data)
	return unix.Munmap(m)
}

// MapHuge maps whole pages of a file of huge pages here, to be written to. The task, whose
// descriptor fd leads to it, allocates them itself: huge pages are charged to the cgroup
// of who allocates them, not to that of the memory's owner. The caller unmaps them before
// they are taken away from the file.
func (t *Task) MapHuge(fd int, size, start, length uint64) ([]byte, error) {
	err := t.Run([]tracer.Call{tracer.Syscall(unix.SYS_FALLOCATE, uint64(fd), unix.FALLOC_FL_KEEP_SIZE, start, length)})
	if err != nil {
		return nil, fmt.Errorf("allocate huge pages of %s at %#x: %w", HugeName(size), start, err)
	}
	f, err := os.OpenFile(t.Proc.Path(fmt.Sprintf("fd/%d", fd)), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Not counted against the pool: they are there.
	m, err := unix.Mmap(int(f.Fd()), int64(start), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map huge pages at %#x: %w", start, err)
	}
	return m, nil
}
