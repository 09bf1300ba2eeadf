// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"testing"

	"github.com/io-mig/mig/spec/record"
)

// TestPlannerCoversEveryPageOnce adds runs of all sizes around the limits and
// checks that chunks hold exactly them, in order, within the limits.
func TestPlannerCoversEveryPageOnce(t *testing.T) {
	var p planner
	var want []uint64
	at := uint64(0x10000)
	for _, pages := range []uint64{1, 1, 127, 128, 129, 1, 1000, 3} {
		p.add(at, at+pages*pageSize)
		for i := range pages {
			want = append(want, at+i*pageSize)
		}
		at += (pages + 5) * pageSize
	}
	for range 3 * maxRuns { // runs of one page: the number of runs is the limit
		p.add(at, at+pageSize)
		want = append(want, at)
		at += 2 * pageSize
	}
	p.close()
	var got []uint64
	for _, c := range p.chunks {
		var n uint64
		for _, r := range c.runs {
			n += r.bytes()
			for a := r.start; a < r.end; a += pageSize {
				got = append(got, a)
			}
		}
		if n != c.bytes || len(c.runs) > maxRuns || n == 0 {
			t.Fatalf("chunk of %d runs says %d bytes and has %d", len(c.runs), c.bytes, n)
		}
		if payload := c.header() + int(c.bytes); payload > chunkBytes || payload > record.MaxPayload {
			t.Fatalf("chunk of %d bytes does not fit a record or a buffer", c.bytes)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d pages planned, %d added", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("page %d is %#x, want %#x", i, got[i], want[i])
		}
	}
}

// TestFullFirst: records that fill a huge page come first, all others keep
// their order.
func TestFullFirst(t *testing.T) {
	var p planner
	const far = 1 << 30
	p.add(far, far+pageSize)                    // with the next one
	p.add(2*far, 2*far+chunkBytes)              // split: it has no room for all
	p.add(4*far, 4*far+3*chunkBytes+3*pageSize) // several full ones
	p.add(6*far, 6*far+chunkBytes-4*pageSize)   // behind the rest of it: full, with an index
	p.close()
	fullFirst(p.chunks)
	full, rest, last := 0, 0, uint64(0)
	for _, c := range p.chunks {
		switch payload := uint64(c.header()) + c.bytes; {
		case payload == chunkBytes && rest == 0:
			full++
		case payload == chunkBytes:
			t.Errorf("a full record behind %d others", rest)
		case c.runs[0].start < last:
			t.Errorf("%#x comes behind %#x", c.runs[0].start, last)
		default:
			rest, last = rest+1, c.runs[0].start
		}
	}
	if full < 4 || rest == 0 {
		t.Errorf("%d full records and %d others", full, rest)
	}
}

// FuzzDecodeIndex: hostile indexes give an error or runs that add up, and what
// decodes encodes to the same bytes.
func FuzzDecodeIndex(f *testing.F) {
	seed := make([]byte, 3*pageSize)
	encodeIndex(seed, []run{{0x1000, 0x2000}, {0x5000, 0x6000}})
	f.Add(seed)
	f.Add(seed[:pageSize])
	f.Fuzz(func(t *testing.T, payload []byte) {
		runs, data, err := decodeIndex(payload)
		if err != nil {
			return
		}
		var n uint64
		for i, r := range runs {
			if r.end <= r.start || i > 0 && r.start < runs[i-1].end {
				t.Fatalf("run %d: %+v", i, r)
			}
			n += r.bytes()
		}
		if n != uint64(len(data)) {
			t.Fatalf("runs of %d bytes for %d bytes", n, len(data))
		}
		again := make([]byte, pageSize)
		encodeIndex(again, runs)
		used := 16 + 16*len(runs)
		if !bytes.Equal(again[:used-0][16:], payload[16:used]) {
			t.Fatal("index changes when it is encoded again")
		}
	})
}
