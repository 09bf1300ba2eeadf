// SPDX-License-Identifier: Apache-2.0

package memory

import (
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

	mu     sync.Mutex
	missed pageSet // in ascending order after send
	gone   []run
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
	var taken atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(c.s.workers, len(chunks)) {
		g.Go(func() error {
			buf := buffers.Get().(*[]byte)
			defer buffers.Put(buf)
			for {
				i := int(taken.Add(1)) - 1
				if i >= len(chunks) {
					return nil
				}
				if err := c.one(ctx, mem, &chunks[i], *buf); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	slices.SortFunc(c.gone, func(a, b run) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	for _, r := range c.gone {
		c.missed = c.missed.put(r)
	}
	return nil
}

// one copies one chunk and pushes it.
func (c *copier) one(ctx context.Context, mem *os.File, ch *chunk, buf []byte) error {
	head := ch.header()
	err := readRuns(c.p.Pid, mem, c.gently, ch.runs, buf[head:head+int(ch.bytes)])
	if err != nil && !c.live {
		return err
	}
	if err == nil {
		return c.push(ctx, ch, buf)
	}
	left := c.survivors(mem, ch)
	for i := range left {
		head := left[i].header()
		if err := readRuns(c.p.Pid, mem, c.gently, left[i].runs, buf[head:head+int(left[i].bytes)]); err != nil {
			c.miss(left[i].runs...)
			continue
		}
		if err := c.push(ctx, &left[i], buf); err != nil {
			return err
		}
	}
	return nil
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

// push sends a chunk whose pages are in buf, behind the room for their index.
func (c *copier) push(ctx context.Context, ch *chunk, buf []byte) error {
	h := record.Header{Subsystem: Name, Process: c.p.ID, Entity: ch.runs[0].start, Kind: KindPages}
	head := ch.header()
	if head > 0 {
		h.Kind = KindScattered
		encodeIndex(buf, ch.runs)
	}
	if err := c.out.Push(ctx, &record.Record{Header: h, Payload: buf[:head+int(ch.bytes)]}); err != nil {
		return err
	}
	c.s.bytes.Add(ch.bytes)
	return nil
}
