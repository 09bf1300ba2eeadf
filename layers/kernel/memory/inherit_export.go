// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"cmp"
	"context"
	"os"
	"slices"
	"sort"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Pages that processes share copy-on-write, since one was forked from the other
// or both from a third, are carried with the first of them; the others name
// them. Such pages are found by the numbers of their page frames, which
// /proc/PID/pagemap shows to those who have CAP_SYS_ADMIN; for anybody else no
// page is shared, and every one carried for each.
//
// Source: Documentation/admin-guide/mm/pagemap.rst.

// Bits of an entry of /proc/PID/pagemap.
const (
	entryPresent   = 1 << 63
	entrySwapped   = 1 << 62
	entryFile      = 1 << 61 // of a file, or shared anonymous memory
	entryExclusive = 1 << 56 // nobody else maps it
	entryFrame     = 1<<55 - 1
)

// rangesPerRecord keeps a record of inherited ranges far below
// record.MaxPayload.
const rangesPerRecord = 32 << 10

// entriesAtOnce is how many entries are read and compared at once.
const entriesAtOnce = 8192

// donor is a process whose memory comes before in the image.
type donor struct {
	id       record.ProcessID
	pages    *os.File // its /proc/PID/pagemap
	mappings []*state.Mapping
}

// donors are those with which a process may share pages: its parent and the
// eldest of its siblings that has been exported.
func (s *Subsystem) donors(p *target.Process) ([]*donor, error) {
	parent, ok := s.family.parents[p.ID]
	if !ok {
		return nil, nil
	}
	ids := []record.ProcessID{parent}
	for _, o := range s.env.Source.Processes() {
		up, ok := s.family.parents[o.ID]
		if o.Space() == o && ok && up == parent && o.ID != p.ID && s.family.isDone(o.ID) {
			ids = append(ids, o.ID)
			break
		}
	}
	var out []*donor
	for _, id := range ids {
		f, err := os.Open(s.env.Source.Process(id).Proc.Path("pagemap"))
		if err != nil {
			closeDonors(out)
			return nil, err
		}
		out = append(out, &donor{id, f, s.exported(id).mappings})
	}
	return out, nil
}

// isDone: all of a process's memory was pushed.
func (f *family) isDone(id record.ProcessID) bool {
	select {
	case <-f.done[id]:
		return true
	default:
		return false
	}
}

func closeDonors(list []*donor) {
	for _, d := range list {
		d.pages.Close()
	}
}

// inherit takes out of the chunks of a process what it shares with donors, and
// pushes records about that.
func (s *Subsystem) inherit(ctx context.Context, p *target.Process, chunks []chunk, out record.Sink) ([]chunk, error) {
	list, err := s.donors(p)
	if err != nil || len(list) == 0 || len(chunks) == 0 {
		return chunks, err
	}
	defer closeDonors(list)
	mine, err := os.Open(p.Proc.Path("pagemap"))
	if err != nil {
		return nil, err
	}
	defer mine.Close()
	c := comparison{mine: mine, donors: list, inherited: make([][]*state.Range, len(list))}
	if err := eachSpan(runsOf(chunks), c.part); err != nil {
		return nil, err
	}
	c.own.close()
	fullFirst(c.own.chunks)
	for i, d := range list {
		if err := pushInherited(ctx, p.ID, d.id, c.inherited[i], out); err != nil {
			return nil, err
		}
	}
	return c.own.chunks, nil
}

// runsOf are the runs of chunks, which come in the order of their sizes, as the
// planner wants them: ascending.
func runsOf(chunks []chunk) (runs []run) {
	for _, ch := range chunks {
		runs = append(runs, ch.runs...)
	}
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.start, b.start) })
	return runs
}

func pushInherited(ctx context.Context, id, from record.ProcessID, ranges []*state.Range, out record.Sink) error {
	for len(ranges) > 0 {
		n := min(len(ranges), rangesPerRecord)
		h := record.Header{Subsystem: Name, Process: id, Kind: KindInherited, Entity: ranges[0].Start}
		if err := pushMessage(ctx, out, h, &state.Inherited{From: uint32(from), Range: ranges[:n]}); err != nil {
			return err
		}
		ranges = ranges[n:]
	}
	return nil
}

// comparison sorts a process's pages into its own and those of donors.
type comparison struct {
	mine      *os.File
	donors    []*donor
	own       planner
	inherited [][]*state.Range
}

// part sorts the pages of runs that are all in one span.
func (c *comparison) part(span run, parts []run) error {
	// Entries of donors are read before and behind the process's own: a page that
	// the kernel moves meanwhile is taken for another one, never another one for it.
	before, err := c.all(span)
	if err != nil {
		return err
	}
	mine, err := entries(c.mine, span)
	if err != nil {
		return err
	}
	behind, err := c.all(span)
	if err != nil {
		return err
	}
	for _, r := range parts {
		for start := r.start; start < r.end; start += pageSize {
			i := (start - span.start) / pageSize
			from := -1
			for d := range c.donors {
				if from < 0 && sharedPage(mine[i], before[d][i]) && sharedPage(mine[i], behind[d][i]) && c.donors[d].carries(start) {
					from = d
				}
			}
			if from < 0 {
				c.own.add(start, start+pageSize)
				continue
			}
			c.note(from, start)
		}
	}
	return nil
}

// note adds a page to what is inherited.
func (c *comparison) note(from int, start uint64) {
	list := c.inherited[from]
	if n := len(list); n > 0 && list[n-1].Start+list[n-1].Length == start {
		list[n-1].Length += pageSize
		return
	}
	c.inherited[from] = append(list, &state.Range{Start: start, Length: pageSize})
}

// all reads the donors' entries of a span.
func (c *comparison) all(r run) ([][]uint64, error) {
	out := make([][]uint64, len(c.donors))
	for i, d := range c.donors {
		var err error
		if out[i], err = entries(d.pages, r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// sharedPage: both entries are of one anonymous page.
func sharedPage(a, b uint64) bool {
	if (a|b)&(entryFile|entryExclusive) != 0 || a&entryFrame == 0 || a&entryFrame != b&entryFrame {
		return false
	}
	return a&b&entryPresent != 0 || a&b&entrySwapped != 0
}

// carries: the donor's page at an address is in the image.
func (d *donor) carries(at uint64) bool { return hasPagesAt(d.mappings, at) }

func hasPagesAt(mappings []*state.Mapping, at uint64) bool {
	i := sort.Search(len(mappings), func(i int) bool { return end(mappings[i]) > at })
	return i < len(mappings) && mappings[i].Start <= at && hasPages(mappings[i])
}
