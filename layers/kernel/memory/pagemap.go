// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Page categories of PAGEMAP_SCAN, include/uapi/linux/fs.h.
const (
	pageIsTracked = 1 << 0 // PAGE_IS_WPALLOWED
	pageIsWritten = 1 << 1
	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsPFNZero = 1 << 5
	pageIsGuard   = 1 << 8
)

const (
	pageSize = 4096
	// pagemapScan is _IOWR('f', 16, struct pm_scan_arg).
	pagemapScan = 0xc0606610
)

// scanArg is struct pm_scan_arg of include/uapi/linux/fs.h.
type scanArg struct {
	size, flags, start, end, walkEnd uint64
	// vec is a pointer, not a number: the runtime moves stacks.
	vec              *pageRegion
	vecLen, maxPages uint64

	inverted, mask, anyOf, returned uint64
}

// scanProtect is PM_SCAN_WP_MATCHING: tracked pages that match and were written
// are marked clean in the same moment. What is not tracked is passed over.
const scanProtect = 1 << 0

// pageRegion is struct page_region: a run of pages of equal categories.
type pageRegion struct{ start, end, categories uint64 }

// pagemap is an open /proc/PID/pagemap.
type pagemap struct{ f *os.File }

func openPagemap(pid int) (*pagemap, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, fmt.Errorf("open the page map: %w", err)
	}
	return &pagemap{f}, nil
}

func (p *pagemap) Close() error { return p.f.Close() }

// selection says which pages a scan returns: those that have every category
// of all, none of none, and at least one of any or not all of anyNot (both 0: does not
// matter). What is in one of them is in no other.
type selection struct{ all, none, any, anyNot uint64 }

// scan calls fn for every run of selected pages in [start, end), in ascending
// order, adjacent runs joined.
func (p *pagemap) scan(start, end uint64, sel selection, fn func(start, end uint64)) error {
	return p.walk(start, end, walk{selection: sel}, func(r pageRegion) { fn(r.start, r.end) })
}

// walk is a scan that tells categories apart.
type walk struct {
	selection
	// distinct are the categories by which runs are told apart.
	distinct uint64
	flags    uint64
}

// The kernel holds the lock of the address space for all of a call, 1 to 40 ns for each
// page, and whoever changes a mapping meanwhile waits: the process that runs, or a
// remote call in one that stands still (brk(2), mmap(2)). So one call looks at walkBytes
// at first, and at twice as much as the last one where that took less than walkTime:
// of what is mapped much may have no page tables.
const (
	walkBytes = 64 << 20
	walkTime  = 30 * time.Microsecond
)

// walk calls fn for every run of selected pages that agree in the distinct
// categories.
func (p *pagemap) walk(start, end uint64, w walk, fn func(pageRegion)) error {
	vec := make([]pageRegion, 512)
	arg := scanArg{
		size: uint64(unsafe.Sizeof(scanArg{})), flags: w.flags, start: start,
		vec: &vec[0], vecLen: uint64(len(vec)),
		// A category in inverted matches when it is absent.
		inverted: w.none | w.anyNot, mask: w.all | w.none, anyOf: w.any | w.anyNot,
		returned: w.distinct,
	}
	if w.distinct == 0 {
		arg.returned = pageIsPresent // the kernel wants one
	}
	var open pageRegion
	for most := uint64(walkBytes); arg.start < end; {
		arg.end = min(end, (arg.start+most)&^(hugeSize-1)) // a huge page in parts would be split
		begun := time.Now()
		n, _, e := unix.Syscall(unix.SYS_IOCTL, p.f.Fd(), pagemapScan, uintptr(unsafe.Pointer(&arg)))
		if most = walkBytes; time.Since(begun) < walkTime {
			most = 2 * (arg.end - arg.start)
		}
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return fmt.Errorf("PAGEMAP_SCAN of %#x-%#x (needs Linux 6.7): %w", start, end, e)
		}
		for _, r := range vec[:n] {
			r.categories &= w.distinct
			if open.end == r.start && open.categories == r.categories {
				open.end = r.end
				continue
			}
			if open.end > open.start {
				fn(open)
			}
			open = r
		}
		if arg.walkEnd <= arg.start {
			return fmt.Errorf("PAGEMAP_SCAN stays at %#x", arg.start)
		}
		arg.start = arg.walkEnd
	}
	if open.end > open.start {
		fn(open)
	}
	return nil
}
