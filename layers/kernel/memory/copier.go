// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// copier copies pages of one process into records, by several workers.
type copier struct {
	s   *Subsystem
	p   *target.Process
	out record.Sink
	// live: the process runs. Pages that it has unmapped since they were listed
	// are missed, which is no failure.
	live bool
	// gently: others may share pages with it: see readRuns.
	gently bool
	// blank are the addresses at which a page that the destination lacks reads as
	// zeroes: those of anonymous memory.
	blank pageSet
	// finder finds pages that hold what others do; nil: all are sent.
	finder *finder

	mu      sync.Mutex
	missed  pageSet // in ascending order after send
	gone    []run
	zeroes  []run    // blank pages that were not sent since they are zeroes
	repeats []repeat // pages that were not sent since others hold the same
}

// plan cuts pages into chunks.
func plan(s pageSet) []chunk {
	var pl planner
	for _, r := range s {
		pl.add(r.start, r.end)
	}
	pl.close()
	fullFirst(pl.chunks)
	return pl.chunks
}

// send copies and pushes chunks.
func (c *copier) send(ctx context.Context, chunks []chunk) error {
	if len(chunks) == 0 {
		return nil
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", c.p.Pid))
	if err != nil {
		return fmt.Errorf("open its memory: %w", err)
	}
	defer mem.Close()
	c.gently = len(c.s.env.Source.Processes()) > 1
	if err := c.share(ctx, mem, chunks); err != nil {
		return err
	}
	c.missed = c.missed.union(sorted(c.gone))
	c.gone = nil
	if len(c.zeroes) > 0 {
		if err := pushDropped(ctx, c.p.ID, sorted(c.zeroes), c.out); err != nil {
			return err
		}
	}
	return pushRepeated(ctx, c.p.ID, c.repeats, c.out)
}

// share has the chunks copied by several workers, or by the caller if there is but
// one chunk: to wait for another would take two switches between threads.
func (c *copier) share(ctx context.Context, mem *os.File, chunks []chunk) error {
	var taken atomic.Int64
	work := func(ctx context.Context) error {
		buf := buffers.Get()
		defer buffers.Put(buf)
		d := &desk{mem: mem}
		defer d.clear()
		for {
			i := int(taken.Add(1)) - 1
			if i >= len(chunks) {
				return nil
			}
			if err := c.one(ctx, d, &chunks[i], buf); err != nil {
				return err
			}
		}
	}
	n := min(c.s.workers, len(chunks))
	if n == 1 {
		return work(ctx)
	}
	g, working := errgroup.WithContext(ctx)
	for range n {
		g.Go(func() error { return work(working) })
	}
	return g.Wait()
}

// sorted are disjoint runs as a set.
func sorted(runs []run) (s pageSet) {
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.start, b.start) })
	for _, r := range runs {
		s = s.put(r)
	}
	return s
}

// desk is what a worker has at hand beside the chunk that it copies.
type desk struct {
	mem *os.File // the process's
	// second is a buffer for what pages are compared with; nil until it is needed.
	// It stays here, since a pool forgets what lies in it.
	second []byte
}

func (d *desk) other() []byte {
	if d.second == nil {
		d.second = buffers.Get()
	}
	return d.second
}

func (d *desk) clear() {
	if d.second != nil {
		buffers.Put(d.second)
	}
}

// one copies one chunk and pushes it. The pages lie in buf behind the room for
// their index.
func (c *copier) one(ctx context.Context, d *desk, ch *chunk, buf []byte) error {
	found, err := c.read(d.mem, ch, buf)
	if err != nil && !c.live {
		return err
	}
	if err == nil {
		return c.push(ctx, d, ch, found, buf)
	}
	left := c.survivors(d.mem, ch)
	for i := range left {
		found, err := c.read(d.mem, &left[i], buf)
		if err != nil {
			c.miss(left[i].runs...)
			continue
		}
		if err := c.push(ctx, d, &left[i], found, buf); err != nil {
			return err
		}
	}
	return nil
}

// reading is what a chunk was found to hold.
type reading struct {
	sum    record.Summer // of the record with all of it
	zeroes pageSet       // pages that need not be sent
	marks  []uint64      // of all pages, for the finder; nil: it does not want them
}

// header is that of a chunk's record.
func (c *copier) header(ch *chunk) record.Header {
	h := record.Header{Subsystem: Name, Process: c.p.ID, Entity: ch.runs[0].start, Kind: KindPages}
	if ch.header() > 0 {
		h.Kind = KindScattered
	}
	return h
}

// read copies a chunk's pages and looks at them while they are in the cache.
func (c *copier) read(mem *os.File, ch *chunk, buf []byte) (reading, error) {
	h := c.header(ch)
	found := reading{sum: h.Summer(ch.header() + int(ch.bytes))}
	if ch.header() > 0 {
		encodeIndex(buf, ch.runs)
		found.sum.Add(buf[:pageSize])
	}
	dst := buf[pageSize:]
	wanted := c.finder.wants()
	if wanted {
		found.marks = make([]uint64, 0, ch.bytes/pageSize)
	}
	err := eachPiece(ch.runs, func(piece []run, n uint64) error {
		if err := readRuns(c.p.Pid, mem, c.gently, piece, dst[:n]); err != nil {
			return err
		}
		found.sum.Add(dst[:n])
		found.zeroes = zeroPages(found.zeroes, piece, dst[:n])
		if wanted {
			found.marks = appendMarks(found.marks, dst[:n])
		}
		dst = dst[n:]
		return nil
	})
	return found, err
}

// pieceBytes is what is read at once: it is in the second-level cache when it is
// looked at.
const pieceBytes = 256 << 10

// eachPiece calls fn for parts of runs with n bytes together. fn does not keep
// them.
func eachPiece(runs []run, fn func(part []run, n uint64) error) error {
	var part []run
	n := uint64(0)
	for _, r := range runs {
		for r.start < r.end {
			some := min(r.bytes(), pieceBytes-n)
			part = append(part, run{r.start, r.start + some})
			r.start, n = r.start+some, n+some
			if n < pieceBytes {
				continue
			}
			if err := fn(part, n); err != nil {
				return err
			}
			part, n = part[:0], 0
		}
	}
	if n == 0 {
		return nil
	}
	return fn(part, n)
}

// survivors are the pages of a chunk that can be read one by one.
func (c *copier) survivors(mem *os.File, ch *chunk) []chunk {
	var pl planner
	var page [pageSize]byte
	for _, r := range ch.runs {
		for at := r.start; at < r.end; at += pageSize {
			if n, err := mem.ReadAt(page[:], int64(at)); err != nil || n != pageSize {
				c.miss(run{at, at + pageSize})
				continue
			}
			pl.add(at, at+pageSize)
		}
	}
	pl.close()
	return pl.chunks
}

func (c *copier) miss(r ...run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = append(c.gone, r...)
}

// push sends a chunk whose pages are in buf, without those that need not be sent.
func (c *copier) push(ctx context.Context, d *desk, ch *chunk, found reading, buf []byte) error {
	defer c.s.bytes.Add(ch.bytes)
	zeroes := found.zeroes.intersect(c.blank)
	repeats := c.repeated(d, ch, found.marks, zeroes, buf[pageSize:])
	list := slices.Clone(zeroes)
	for _, r := range repeats {
		list = append(list, r.at)
	}
	omitted := sorted(list)
	if omitted.bytes() < fewPages {
		if ch.header() > 0 {
			encodeIndex(buf, ch.runs)
		}
		r := &record.Record{Header: c.header(ch), Payload: buf[pageSize-ch.header() : pageSize+int(ch.bytes)]}
		r.Summed(found.sum)
		return c.out.Push(ctx, r)
	}
	c.mu.Lock()
	c.zeroes, c.repeats = append(c.zeroes, zeroes...), append(c.repeats, repeats...)
	c.mu.Unlock()
	for _, rest := range omit(ch, omitted, buf) {
		if rest.header() > 0 {
			encodeIndex(buf, rest.runs)
		}
		r := &record.Record{Header: c.header(&rest), Payload: buf[pageSize-rest.header() : pageSize+int(rest.bytes)]}
		if err := c.out.Push(ctx, r); err != nil {
			return err
		}
		buf = buf[rest.bytes:] // the next index lies over what was just sent
	}
	return nil
}

// pushBlank sends a chunk whose pages are not there.
func (c *copier) pushBlank(ctx context.Context, ch *chunk) error {
	b := make([]byte, uint64(ch.header())+ch.bytes)
	if ch.header() > 0 {
		encodeIndex(b, ch.runs)
	}
	c.s.bytes.Add(ch.bytes)
	return c.out.Push(ctx, &record.Record{Header: c.header(ch), Payload: b})
}
