// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"encoding/binary"
	"sort"

	"github.com/io-mig/mig/spec/state"
)

// A page of anonymous memory that was written once and holds zeroes is not sent:
// the destination is told that it holds nothing (KindDropped), which reads the
// same. That costs the destination a system call for each run, and holds up the
// records behind it, so a chunk is only taken apart for some of them, or of pages
// that repeat others.
const fewPages = 16 * pageSize

var zeroPage [pageSize]byte

// blanks are the addresses of mappings whose pages may be told to hold nothing: of
// private memory without a file. Of locked memory every page is there, and a huge
// page would be split.
func blanks(mappings []*state.Mapping) (s pageSet) {
	always := hugeAlways()
	for _, m := range mappings {
		if isEarly(m) && m.Locked == 0 && !wantsHuge(m, always) {
			s = s.put(run{m.Start, end(m)})
		}
	}
	return s
}

// isZero looks at the first word first: what is not zero mostly shows there.
func isZero(page []byte) bool {
	return binary.LittleEndian.Uint64(page) == 0 && bytes.Equal(page, zeroPage[:])
}

// blank: all pages are zeroes.
func blank(data []byte) bool {
	for ; len(data) >= pageSize; data = data[pageSize:] {
		if !isZero(data[:pageSize]) {
			return false
		}
	}
	return true
}

// zeroPages adds the pages of runs, which lie in data one after another, that are
// zeroes to s.
func zeroPages(s pageSet, runs []run, data []byte) pageSet {
	for _, r := range runs {
		for at := r.start; at < r.end; at += pageSize {
			if isZero(data[:pageSize]) {
				s = s.put(run{at, at + pageSize})
			}
			data = data[pageSize:]
		}
	}
	return s
}

// omit takes pages that are not to be sent out of those of a chunk in buf, and
// returns what is left as chunks: their pages lie in buf as before, one after
// another, behind the room for an index.
func omit(ch *chunk, gone pageSet, buf []byte) []chunk {
	var all pageSet
	for _, r := range ch.runs {
		all = all.put(r)
	}
	var rest planner
	to := buf[pageSize:]
	for _, k := range all.subtract(gone) {
		to = to[copy(to, buf[pageSize+ch.offset(k.start):][:k.bytes()]):]
		rest.add(k.start, k.end)
	}
	rest.close()
	return rest.chunks
}

// has reports whether the page at an address is one of the chunk's.
func (c *chunk) has(address uint64) bool {
	i := sort.Search(len(c.runs), func(i int) bool { return c.runs[i].end > address })
	return i < len(c.runs) && c.runs[i].start <= address
}

// offset is where the page at an address lies among the chunk's pages.
func (c *chunk) offset(address uint64) (n uint64) {
	for _, r := range c.runs {
		if address < r.end {
			return n + address - r.start
		}
		n += r.bytes()
	}
	return n
}
