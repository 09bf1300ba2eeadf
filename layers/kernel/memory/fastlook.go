// SPDX-License-Identifier: Apache-2.0

package memory

import "fmt"

// hugeSize is the memory that one page table maps.
const hugeSize = 2 << 20

// lookAgain is look of what was looked at before and protected then, at a tenth
// of the cost: filled is what was there. The kernel has a short way for a scan that
// asks for written pages and nothing else (fs/proc/task_mmu.c,
// pagemap_scan_pmd_entry). It passes over pages that are protected, and reports
// everything else in the page tables that exist: what was written, what is not
// tracked, and what is not there (any more). Those are looked at more closely. What
// it cannot report is in page tables that are gone as a whole (madvise(2) frees
// them): one page of each tells.
func lookAgain(pm *pagemap, ranges, filled pageSet) (pages, error) {
	var changed pageSet
	w := walk{selection: selection{all: pageIsWritten}, distinct: pageIsWritten}
	for _, x := range ranges {
		if err := pm.walk(x.start, x.end, w, func(r pageRegion) { changed = changed.put(run{r.start, r.end}) }); err != nil {
			return pages{}, err
		}
	}
	// What lost its tracking may have kept its marks: see round.register.
	lost, err := pm.untracked(ranges)
	if err != nil {
		return pages{}, err
	}
	changed = changed.union(lost)
	seen, err := look(pm, changed, 0)
	if err != nil {
		return pages{}, err
	}
	quiet, err := pm.withTables(filled.intersect(ranges).subtract(changed))
	if err != nil {
		return pages{}, err
	}
	seen.present = seen.present.union(quiet)
	return seen, nil
}

// withTables are the pages of s whose page table exists, where all pages that are
// not there are known not to be in s.
func (p *pagemap) withTables(s pageSet) (out pageSet, err error) {
	for _, r := range s {
		for at := r.start; at < r.end; {
			next := min(r.end, at&^(hugeSize-1)+hugeSize)
			there, err := p.there(at)
			if err != nil {
				return nil, err
			}
			if there {
				out = out.put(run{at, next})
			}
			at = next
		}
	}
	return out, nil
}

// there reports whether a page is present or swapped: bits 63 and 62 of its entry
// (Documentation/admin-guide/mm/pagemap.rst).
func (p *pagemap) there(at uint64) (bool, error) {
	var entry [8]byte
	if _, err := p.f.ReadAt(entry[:], int64(at/pageSize*8)); err != nil {
		return false, fmt.Errorf("read the page map at %#x: %w", at, err)
	}
	return leUint64(entry[:])>>62 != 0, nil
}
