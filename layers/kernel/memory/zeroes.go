// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"encoding/binary"

	"github.com/io-mig/mig/spec/state"
)

// A page of anonymous memory that was written once and holds zeroes is not sent:
// the destination is told that it holds nothing (KindDropped), which reads the
// same. That costs the destination a system call for each run, and holds up the
// records behind it, so a chunk is only taken apart for some of them.
const fewZeroes = 16 * pageSize

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

// omit takes those of the zeroes that may be left out of a chunk, and out of its
// pages in buf. Without any the chunk is as it was.
func (c *copier) omit(ch *chunk, zeroes pageSet, buf []byte) (*chunk, pageSet) {
	zeroes = zeroes.intersect(c.blank)
	if zeroes.bytes() < fewZeroes {
		return ch, nil
	}
	var all pageSet
	for _, r := range ch.runs {
		all = all.put(r)
	}
	kept := all.subtract(zeroes)
	if len(kept) > maxRuns {
		return ch, nil
	}
	rest := &chunk{runs: kept, bytes: kept.bytes()}
	to := buf[pageSize:]
	for _, k := range kept {
		to = to[copy(to, buf[pageSize+ch.offset(k.start):][:k.bytes()]):]
	}
	return rest, zeroes
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
