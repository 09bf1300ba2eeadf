// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sort"
	"sync"

	"github.com/io-mig/mig/spec/record"
)

// Pages of one process that hold the same are sent once: the destination is told,
// behind the pages of a round, which of them are the others' (KindRepeated). A
// page's mark, a hash of some of its words, says where the same may have been sent;
// whether it is the same is found by reading that page again and comparing all of
// it. Nothing is taken on a hash's word.
//
// A process that runs may have written to the other page since that was sent. Then
// the next look at what was written shows that, and the repeated page is sent like
// one that was written itself: see doubtful.

// repeat says that the pages at hold what those from origin on hold.
type repeat struct {
	at     run
	origin uint64
}

func (r repeat) source() run { return run{r.origin, r.origin + r.at.bytes()} }

// finder finds pages that were sent before. It belongs to what is sent of one process
// without anything between that the destination might apply out of turn: a round, or
// all of a stopped process.
type finder struct {
	mu sync.Mutex
	// Below: guarded by mu.
	// sent has two places for each mark, which the last ones to come have.
	sent []places
	// chunks that came, pages that were looked at, those of them that were found to
	// repeat another one, and those that only seemed to.
	chunks, looked, found, mistaken uint64
}

// sentPage is a page that was sent as it is.
type sentPage struct{ mark, at uint64 }

type places [2]sentPage

// put takes in a page, in the place of the one that has its mark, or of the older.
func (p *places) put(page sentPage) {
	if p[0].mark != page.mark {
		p[1] = p[0]
	}
	p[0] = page
}

// of is the address of a page with a mark, 0 if there is none.
func (p *places) of(mark uint64) uint64 {
	for i := range p {
		if p[i].mark == mark {
			return p[i].at
		}
	}
	return 0
}

const (
	// maxSent bounds the places of a finder: 2 MB, for pages of the last 512.
	maxSent = 128 << 10
	// fewSent are so few pages that looking does not pay.
	fewSent = 64
	// Pages that repeat others are rare in most programs, and a look at a page costs
	// some nanoseconds: after sureAfter pages of which less than one in rareRepeats was
	// found only one chunk in rareLooks is looked at.
	sureAfter   = 16 << 10
	rareRepeats = 50
	rareLooks   = 16
	// tooOften: nothing is compared any more once so many pages, and half of all that
	// were compared, were not what they seemed.
	tooOften = 256
)

// newFinder makes one for so many bytes, or none: for a destination that does not
// know KindRepeated, and for what is not worth it.
func (s *Subsystem) newFinder(size uint64) *finder {
	pages := size / pageSize
	if !s.repeats.Load() || pages < fewSent {
		return nil
	}
	return &finder{sent: make([]places, 1<<bits.Len64(min(pages, maxSent/2)-1))}
}

// wants says whether the next chunk is to be looked at.
func (f *finder) wants() bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chunks++
	switch {
	case f.mistaken > tooOften && f.mistaken > f.found:
		return false
	case f.looked > sureAfter && f.found*rareRepeats < f.looked:
		return f.chunks%rareLooks == 0
	}
	return true
}

// seems notes the pages of a chunk that are sent, and returns those that seem to
// have been sent before. Those in blank that are no zeroes are looked at.
func (f *finder) seems(ch *chunk, marks []uint64, blank, zeroes pageSet) (list []repeat) {
	var eligible pageSet
	for _, r := range ch.runs {
		eligible = eligible.put(r)
	}
	eligible = eligible.intersect(blank).subtract(zeroes)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range eligible {
		first := ch.offset(r.start) / pageSize
		for i := range r.bytes() / pageSize {
			mark, at := marks[first+i], r.start+i*pageSize
			p := &f.sent[mark%uint64(len(f.sent))]
			if other := p.of(mark); other != 0 {
				list = append(list, repeat{run{at, at + pageSize}, other})
				continue
			}
			p.put(sentPage{mark, at})
		}
		f.looked += r.bytes() / pageSize
	}
	return list
}

// learn notes how many pages were found to repeat others. Those that were not are
// sent, and take the places of what they were compared with: that may have been
// written since.
func (f *finder) learn(found int, mistaken []sentPage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found += uint64(found)
	f.mistaken += uint64(len(mistaken))
	for _, page := range mistaken {
		f.sent[page.mark%uint64(len(f.sent))].put(page)
	}
}

// appendMarks appends the mark of each page of data.
func appendMarks(marks []uint64, data []byte) []uint64 {
	for ; len(data) > 0; data = data[pageSize:] {
		marks = append(marks, markOf(data[:pageSize]))
	}
	return marks
}

// markOf hashes sixteen words from all over a page, in four chains that the
// processor follows at once.
func markOf(page []byte) uint64 {
	const prime, step = 0x9e3779b97f4a7c15, pageSize / 16
	var h [4]uint64
	for i := range 16 {
		word := binary.LittleEndian.Uint64(page[i*step+i*8:])
		h[i%4] = bits.RotateLeft64(h[i%4]^word*prime, 29) * prime
	}
	x := (h[0] ^ bits.RotateLeft64(h[1], 13)) * prime
	x ^= (h[2] ^ bits.RotateLeft64(h[3], 31)) * prime
	return x ^ x>>32
}

// repeated are those pages of a chunk, which lie in data one after another, that
// have the content of others which were sent as they are. What cannot be read any
// more repeats nothing.
func (c *copier) repeated(d *desk, ch *chunk, marks []uint64, zeroes pageSet, data []byte) []repeat {
	c.mu.Lock()
	full := len(c.repeats) > maxRepeats
	c.mu.Unlock()
	if marks == nil || full {
		return nil
	}
	list := c.finder.seems(ch, marks, c.blank, zeroes)
	if len(list)*pageSize+int(zeroes.bytes()) < fewPages {
		return nil
	}
	far, places := elsewhere(ch, list)
	others := d.other()
	if err := readRuns(c.p.Pid, d.mem, c.gently, far, others[:pageSet(far).bytes()]); err != nil {
		return nil
	}
	same := list[:0]
	var mistaken []sentPage
	for i, r := range list {
		at, other := ch.offset(r.at.start), others[places[i]:]
		if ch.has(r.origin) {
			other = data[ch.offset(r.origin):]
		}
		if bytes.Equal(data[at:][:pageSize], other[:pageSize]) {
			same = append(same, r)
			continue
		}
		mistaken = append(mistaken, sentPage{marks[at/pageSize], r.at.start})
	}
	c.finder.learn(len(same), mistaken)
	return same
}

// elsewhere are the runs of origins that are not in the chunk itself, neighbours as
// one, and where each origin lies among their bytes.
func elsewhere(ch *chunk, list []repeat) (far []run, places []uint64) {
	places = make([]uint64, len(list))
	n := uint64(0)
	for i, r := range list {
		if ch.has(r.origin) {
			continue
		}
		last := len(far) - 1
		switch {
		case last >= 0 && far[last].end-pageSize == r.origin: // once more
			places[i] = n - pageSize
			continue
		case last >= 0 && far[last].end == r.origin:
			far[last].end += pageSize
		default:
			far = append(far, r.source())
		}
		places[i] = n
		n += pageSize
	}
	return far, places
}

// doubtful are repeated pages of a process that ran whose origins were written, or
// have gone, since they were compared: the destination may have something else there.
func doubtful(list []repeat, seen *pages) pageSet {
	origins := make([]run, len(list))
	for i, r := range list {
		origins[i] = r.source()
	}
	suspect := seen.dirty.union(sorted(origins).subtract(seen.present))
	var out []run
	for _, r := range list {
		from := r.source()
		i := sort.Search(len(suspect), func(i int) bool { return suspect[i].end > from.start })
		for ; i < len(suspect) && suspect[i].start < from.end; i++ {
			begin, end := max(suspect[i].start, from.start), min(suspect[i].end, from.end)
			out = append(out, run{r.at.start + begin - from.start, r.at.start + end - from.start})
		}
	}
	return sorted(out)
}

const (
	// maxRepeated bounds the entries of one record of kind KindRepeated, and stepBytes
	// the pages that they name together as far as we write them: it is one step.
	maxRepeated = 64 << 10
	// maxRepeats bounds those of one round, which are kept until the next: 12 MB. What
	// is found behind them is sent.
	maxRepeats = 512 << 10
)

// pushRepeated tells the destination of repeated pages. The records are applied by
// themselves, behind all that came before: see Concurrent.
func pushRepeated(ctx context.Context, id record.ProcessID, list []repeat, out record.Sink) error {
	slices.SortFunc(list, func(a, b repeat) int { return cmp.Compare(a.at.start, b.at.start) })
	list = joined(list)
	for len(list) > 0 {
		n, pages := 0, uint64(0)
		for n < min(len(list), maxRepeated) && pages < stepBytes {
			pages += list[n].at.bytes()
			n++
		}
		h := record.Header{Subsystem: Name, Process: id, Kind: KindRepeated, Entity: list[0].at.start}
		if err := out.Push(ctx, &record.Record{Header: h, Payload: encodeRepeats(list[:n])}); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// joined makes one of neighbours whose origins are neighbours, too, as long as that
// fits a buffer.
func joined(list []repeat) []repeat {
	var out []repeat
	for _, r := range list {
		if n := len(out); n > 0 && out[n-1].at.end == r.at.start && out[n-1].source().end == r.origin && out[n-1].at.bytes()+r.at.bytes() <= chunkBytes {
			out[n-1].at.end = r.at.end
			continue
		}
		out = append(out, r)
	}
	return out
}

// encodeRepeats writes start, length and origin of each, little-endian 64-bit
// numbers.
func encodeRepeats(list []repeat) []byte {
	b := make([]byte, 0, 24*len(list))
	for _, r := range list {
		b = binary.LittleEndian.AppendUint64(b, r.at.start)
		b = binary.LittleEndian.AppendUint64(b, r.at.bytes())
		b = binary.LittleEndian.AppendUint64(b, r.origin)
	}
	return b
}

// decodeRepeats is the way back, from an untrusted stream: pages in ascending order,
// none of which is also an origin.
func decodeRepeats(b []byte) ([]repeat, error) {
	if len(b)%24 != 0 || len(b) > 24*maxRepeated {
		return nil, fmt.Errorf("a list of repeated pages has %d bytes", len(b))
	}
	list := make([]repeat, 0, len(b)/24)
	var targets pageSet
	var origins []run
	last := uint64(0)
	for ; len(b) > 0; b = b[24:] {
		start, length, origin := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
		if !validRange(start, length) || !validRange(origin, length) || start < last {
			return nil, fmt.Errorf("a list of repeated pages names %#x, %#x bytes, behind %#x, as those of %#x", start, length, last, origin)
		}
		last = start + length
		r := repeat{run{start, last}, origin}
		list, targets, origins = append(list, r), targets.put(r.at), append(origins, r.source())
	}
	if both := targets.intersect(sorted(origins)); len(both) > 0 {
		return nil, fmt.Errorf("repeated pages at %#x are others' origin", both[0].start)
	}
	return list, nil
}
