// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// spanEntries is how many entries of a page map are read at once where runs lie close
// to each other: as many as the kernel fills in one walk, of one page table
// (PAGEMAP_WALK_SIZE of fs/proc/task_mmu.c). To ask again for each run of few
// pages takes longer than to read what is between them.
const spanEntries = 512

// entries reads the entries of a run of pages.
func entries(pages *os.File, r run) ([]uint64, error) {
	b := make([]byte, r.bytes()/pageSize*8)
	n, err := pages.ReadAt(b, int64(r.start/pageSize*8))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the page map at %#x: %w", r.start, err)
	}
	clear(b[n:]) // behind the address space of a donor
	out := make([]uint64, len(b)/8)
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return out, nil
}

// eachSpan calls fn for runs, in their order, those together that follow each other
// closely and upwards: span covers them and is entriesAtOnce pages long at most, as a
// part of one run, or spanEntries with several. fn does not keep them.
func eachSpan(runs []run, fn func(span run, parts []run) error) error {
	var parts []run
	for _, r := range runs {
		for r.start < r.end {
			some := run{r.start, min(r.end, r.start+entriesAtOnce*pageSize)}
			r.start = some.end
			if n := len(parts); n > 0 && (some.start < parts[n-1].end || some.end-parts[0].start > spanEntries*pageSize) {
				if err := fn(run{parts[0].start, parts[n-1].end}, parts); err != nil {
					return err
				}
				parts = parts[:0]
			}
			parts = append(parts, some)
		}
	}
	if n := len(parts); n > 0 {
		return fn(run{parts[0].start, parts[n-1].end}, parts)
	}
	return nil
}
