// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// left is memory of a stopped process that stays behind at the switch, on its
// way out: by chunks in the background (StageLeft), and by pulls before.
type left struct {
	p     *target.Process
	pages pageSet
	// supposed are those of them that may not be there, see ahead.list. blanks are
	// chunks of those that were found not to be, once looked at.
	supposed pageSet
	looked   bool
	blanks   []chunk

	mu     sync.Mutex
	chunks []chunk // that were not pushed yet, in ascending order
	// hint is where the copy has asked for pages last: what follows there is
	// pushed first.
	hint   uint64
	filled bool // the end was told
}

// leavable: pages of the mapping can come when the copy runs. Not what is locked,
// and not what a child has not, or has empty.
func leavable(m *state.Mapping) bool {
	return isEarly(m) && m.Protection == unix.PROT_READ|unix.PROT_WRITE && m.Locked == 0 && !m.GrowsDown &&
		!slices.Contains(m.Advice, unix.MADV_DONTFORK) && !slices.Contains(m.Advice, unix.MADV_WIPEONFORK) && len(m.Guard) == 0
}

// leave takes the pages that may stay behind out of those that the destination
// lacks and tells it which they are.
func (s *Subsystem) leave(ctx context.Context, p *target.Process, may pageSet, seen *pages, lacks pageSet, out record.Sink) (pageSet, error) {
	stays := lacks.intersect(may)
	if len(stays) == 0 {
		return lacks, nil
	}
	if err := pushRuns(ctx, record.Header{Subsystem: Name, Process: p.ID, Kind: KindLeft}, stays, out); err != nil {
		return nil, err
	}
	l := &left{p: p, pages: stays, supposed: seen.supposed, chunks: ascending(stays)}
	s.mu.Lock()
	s.lefts[p.ID] = l
	s.mu.Unlock()
	return lacks.subtract(stays), nil
}

// ascending is plan in the order of the addresses.
func ascending(pages pageSet) []chunk {
	chunks := plan(pages)
	slices.SortFunc(chunks, func(a, b chunk) int { return cmp.Compare(a.runs[0].start, b.runs[0].start) })
	return chunks
}

// look finds out which of the pages that were supposed to be there are not, and takes
// them out of the chunks. The copy runs.
func (l *left) look() error {
	if l.looked {
		return nil
	}
	gone, err := l.absent(l.supposed)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looked = true
	if len(gone) > 0 {
		l.chunks, l.blanks = ascending(l.pages.subtract(gone)), ascending(gone)
	}
	return nil
}

// absent are those of the pages that are not there: they read as zeroes. Not all of
// them could be read, since they may belong to a guard region by now (madvise(2)).
func (l *left) absent(s pageSet) (pageSet, error) {
	if len(s) == 0 {
		return nil, nil
	}
	pm, err := openPagemap(l.p.Pid)
	if err != nil {
		return nil, err
	}
	defer pm.Close()
	there, err := look(pm, s, 0)
	return s.subtract(there.present), err
}

// leftStep is how many chunks one step pushes.
const leftStep = 8

// exportLeft pushes some of what was left behind.
func (s *Subsystem) exportLeft(ctx context.Context, id record.ProcessID, out record.Sink) (record.Progress, error) {
	s.mu.Lock()
	l := s.lefts[id]
	s.mu.Unlock()
	if l == nil || l.filled {
		return record.Progress{Done: true}, nil
	}
	some, err := l.send(ctx, &copier{s: s, p: l.p, out: out})
	if err != nil {
		return record.Progress{}, fmt.Errorf("memory: pid %d: what was left behind: %w", l.p.Pid, err)
	}
	var n uint64
	for i := range some {
		n += some[i].bytes
	}
	if len(some) < leftStep {
		l.filled = true
		h := record.Header{Subsystem: Name, Process: id, Kind: KindFilled}
		if err := out.Push(ctx, &record.Record{Header: h}); err != nil {
			return record.Progress{}, err
		}
	}
	return record.Progress{Done: l.filled, Advanced: true, Bytes: n}, nil
}

// next takes up to n chunks, from the hint on and around.
func (l *left) next(n int) []chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, len(l.chunks))
	at, _ := slices.BinarySearchFunc(l.chunks, l.hint, func(c chunk, hint uint64) int {
		if c.runs[len(c.runs)-1].end <= hint {
			return -1
		}
		return 1
	})
	at = min(at, len(l.chunks)-n)
	some := slices.Clone(l.chunks[at : at+n])
	l.chunks = slices.Delete(l.chunks, at, at+n)
	if n > 0 {
		l.hint = some[n-1].runs[len(some[n-1].runs)-1].end
	}
	return some
}

// send pushes up to leftStep chunks, and fewer when there are no more.
func (l *left) send(ctx context.Context, c *copier) ([]chunk, error) {
	if err := l.look(); err != nil {
		return nil, err
	}
	some := l.next(leftStep)
	if err := c.send(ctx, some); err != nil {
		return nil, err
	}
	for len(some) < leftStep && len(l.blanks) > 0 {
		if err := c.pushBlank(ctx, &l.blanks[0]); err != nil {
			return nil, err
		}
		some, l.blanks = append(some, l.blanks[0]), l.blanks[1:]
	}
	return some, nil
}

// maxPull bounds what is pulled at once, in bytes.
const maxPull = 256 << 10

// Pull gives out pages that the copy waits for. They lie in what was left behind.
func (s *Subsystem) Pull(_ context.Context, want record.Pull) (*record.Record, func(), error) {
	s.mu.Lock()
	l := s.lefts[want.Process]
	s.mu.Unlock()
	r := run{want.Entity, want.Entity + uint64(want.Length)}
	if l == nil || want.Length > maxPull || !validRange(r.start, r.bytes()) || len((pageSet{r}).subtract(l.pages)) > 0 {
		return nil, nil, fmt.Errorf("memory: process %d: %#x-%#x was not left behind", want.Process, r.start, r.end)
	}
	mem, err := os.Open(l.p.Proc.Path("mem"))
	if err != nil {
		return nil, nil, err
	}
	defer mem.Close()
	buf := buffers.Get()
	b := buf[:r.bytes()]
	if err := l.read(mem, r, b); err != nil {
		buffers.Put(buf)
		return nil, nil, fmt.Errorf("memory: pid %d: %w", l.p.Pid, err)
	}
	l.mu.Lock()
	l.hint = r.end
	l.mu.Unlock()
	h := record.Header{Subsystem: Name, Process: want.Process, Kind: KindPages, Entity: r.start}
	return &record.Record{Header: h, Payload: b}, func() { buffers.Put(buf) }, nil
}

// read reads what is there of a run, of which some may be supposed, and zeroes.
func (l *left) read(mem *os.File, r run, b []byte) error {
	gone, err := l.absent(l.supposed.intersect(pageSet{r}))
	if err != nil {
		return err
	}
	for _, g := range gone {
		clear(b[g.start-r.start : g.end-r.start])
	}
	for _, x := range (pageSet{r}).subtract(gone) {
		if err := readRuns(l.p.Pid, mem, false, []run{x}, b[x.start-r.start:x.end-r.start]); err != nil {
			return err
		}
	}
	return nil
}
