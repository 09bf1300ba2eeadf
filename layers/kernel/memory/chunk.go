// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Kinds of the subsystem's records.
const (
	// KindAddressSpace: state.AddressSpace, entity 0.
	KindAddressSpace = 1
	// KindMappings: state.Mappings, entity is the first one's start.
	KindMappings = 2
	// KindPages: the raw bytes of one run of pages, entity is its address.
	KindPages = 3
	// KindScattered: several runs. The payload begins with an index of whole
	// pages (see encodeIndex), followed by the runs' bytes one after another;
	// entity is the first run's address.
	KindScattered = 4
	// KindShared: state.SharedMemory, shared, entity is the object's id.
	KindShared = 5
	// KindSharedPages: raw bytes of a shared object, shared; see sharedEntity.
	KindSharedPages = 6
	// KindObject: state.FileObject of a mapped file, shared, entity is its id.
	KindObject = 16
	// KindContent: raw bytes of such a file, shared; see target.ContentEntity.
	KindContent = 17
	// KindInherited: state.Inherited, entity is the first page's address.
	KindInherited = 18
	// KindDropped: runs of pages (see encodeRuns) that hold nothing any more, or
	// zeroes, entity is the first one's address. Between the rounds of a process that is
	// copied ahead there is one, empty if need be.
	KindDropped = 32
	// KindLeft: runs of pages that come when the copy runs, entity is the first
	// one's address.
	KindLeft = 33
	// KindFilled: nothing of that is left, entity 0, no payload.
	KindFilled = 34
	// KindRepeated: runs of pages that hold what others of the same process hold
	// (see encodeRepeats), as those were sent; entity is the first run's address. It
	// is sent to a destination that has asked for it (verbRepeats), never to an image.
	KindRepeated = 35
)

// chunkBytes is the payload that one record of pages aims at: a huge page, so
// that a medium that keeps its data in huge pages fills one with every write
// and need not clear it first. Checksum and copy read it from the third-level
// cache; a payload that fits the second level makes them faster by less than
// the clearing costs.
const chunkBytes = 2 << 20

// maxRuns bounds the runs of one scattered record: its index fits one page, and
// process_vm_readv(2) takes up to 1,024 ranges (IOV_MAX) in one call.
const maxRuns = pageSize/16 - 1

// run is a range of pages [start, end).
type run struct{ start, end uint64 }

func (r run) bytes() uint64 { return r.end - r.start }

// chunk is the content of one record of pages.
type chunk struct {
	runs  []run
	bytes uint64
}

// planner cuts runs into chunks in the order in which they come.
type planner struct {
	chunks []chunk
	open   chunk
}

// add appends a run; runs ascend and are page aligned.
func (p *planner) add(start, end uint64) {
	for start < end {
		n := min(end-start, p.room())
		if n == 0 {
			p.close()
			continue
		}
		p.open.runs = append(p.open.runs, run{start, start + n})
		p.open.bytes += n
		start += n
		if p.room() == 0 {
			p.close()
		}
	}
}

// room is how many bytes another run may add to the open chunk: with a second
// run it gets an index.
func (p *planner) room() uint64 {
	switch len(p.open.runs) {
	case 0:
		return chunkBytes
	case maxRuns:
		return 0
	}
	return chunkBytes - min(chunkBytes, p.open.bytes+pageSize)
}

// fullFirst puts the records whose payload is exactly chunkBytes before the
// others: a medium aligns them, and need leave a gap only once.
func fullFirst(chunks []chunk) {
	part := func(c chunk) int {
		if uint64(c.header())+c.bytes == chunkBytes {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(chunks, func(a, b chunk) int { return part(a) - part(b) })
}

// close ends the open chunk.
func (p *planner) close() {
	if len(p.open.runs) > 0 {
		p.chunks = append(p.chunks, p.open)
		p.open = chunk{}
	}
}

// header is the size of the index in front of the pages, 0 for a single run.
func (c *chunk) header() int {
	if len(c.runs) == 1 {
		return 0
	}
	return pageSize
}

// encodeIndex writes the index of a scattered record: a page of little-endian
// 64-bit numbers, first how many runs there are and 0, then start and length
// of each, the rest zero.
func encodeIndex(dst []byte, runs []run) {
	clear(dst[:pageSize])
	binary.LittleEndian.PutUint64(dst, uint64(len(runs)))
	for i, r := range runs {
		binary.LittleEndian.PutUint64(dst[16+16*i:], r.start)
		binary.LittleEndian.PutUint64(dst[24+16*i:], r.bytes())
	}
}

// maxDropped bounds the runs of one record of kind KindDropped.
const maxDropped = 64 << 10

// encodeRuns writes start and length of each run, little-endian 64-bit numbers.
func encodeRuns(runs []run) []byte {
	b := make([]byte, 0, 16*len(runs))
	for _, r := range runs {
		b = binary.LittleEndian.AppendUint64(b, r.start)
		b = binary.LittleEndian.AppendUint64(b, r.bytes())
	}
	return b
}

// decodeRuns is the way back, from an untrusted image: pages in ascending order.
func decodeRuns(b []byte) ([]run, error) {
	if len(b)%16 != 0 || len(b) > 16*maxDropped {
		return nil, fmt.Errorf("a list of runs has %d bytes", len(b))
	}
	runs := make([]run, 0, len(b)/16)
	last := uint64(0)
	for ; len(b) > 0; b = b[16:] {
		start, length := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		if !validRange(start, length) || start < last {
			return nil, fmt.Errorf("a list of runs names %#x, %#x bytes, behind %#x", start, length, last)
		}
		last = start + length
		runs = append(runs, run{start, last})
	}
	return runs, nil
}

// decodeIndex reads the index of a scattered record and returns its runs and
// the bytes behind it. The payload is untrusted: runs are page aligned, ascend,
// and their lengths add up to what is there, or it is an error.
func decodeIndex(payload []byte) ([]run, []byte, error) {
	if len(payload) < pageSize {
		return nil, nil, fmt.Errorf("index of a page record has %d bytes instead of %d", len(payload), pageSize)
	}
	n := binary.LittleEndian.Uint64(payload)
	if n == 0 || n > maxRuns {
		return nil, nil, fmt.Errorf("index of a page record names %d runs, 1 to %d are allowed", n, maxRuns)
	}
	runs := make([]run, n)
	rest := uint64(len(payload) - pageSize)
	var last uint64
	for i := range runs {
		start := binary.LittleEndian.Uint64(payload[16+16*i:])
		length := binary.LittleEndian.Uint64(payload[24+16*i:])
		if start%pageSize != 0 || length%pageSize != 0 || length == 0 || length > rest || start < last || start+length < start {
			return nil, nil, fmt.Errorf("run %d of a page record (%#x, %#x bytes) is not a range of pages behind %#x that fits the %d bytes left", i, start, length, last, rest)
		}
		runs[i] = run{start, start + length}
		last = start + length
		rest -= length
	}
	if rest != 0 {
		return nil, nil, fmt.Errorf("page record has %d bytes more than its runs", rest)
	}
	return runs, payload[pageSize:], nil
}
