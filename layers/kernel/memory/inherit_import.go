// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sort"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// A process is made when its first record of memory arrives (target.Frame.Need),
// as a copy of its maker, whose memory is filled by then if it came before. What
// it is to share with it copy-on-write stays as the fork has left it; the rest
// is unmapped, mapped anew or emptied. Where the fork did not bring the pages
// (the image names another process, or the maker was not filled yet), they are
// copied from the process that has them: the content is right, but nothing is
// shared.

// inherited are pages that a process has from another.
type inherited struct {
	from record.ProcessID
	runs []run
}

// ancestry says what a task was made as a copy of.
type ancestry struct {
	layout  *layout // nil: of a frame, with nothing of the image
	version uint64  // of its content then
}

// noteFork remembers what a process is a copy of.
func (s *Subsystem) noteFork(maker, made *target.Task) {
	if made.Space() != made {
		return // it has nothing of its own, and its copies are those of the other
	}
	maker = maker.Space()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.imports[maker.ID]; maker.ID != record.Shared && l != nil && l.mapped {
		s.copies[made] = ancestry{l, l.version.Load()}
		return
	}
	s.copies[made] = s.copies[maker] // a helper's own is that of its maker
}

// receiveInherited takes a record of kind 18.
func (s *Subsystem) receiveInherited(l *layout, id record.ProcessID, payload []byte) error {
	if l.space == nil || l.mapped {
		return fmt.Errorf("%w: inherited pages in the wrong place", errLayout)
	}
	var m state.Inherited
	if err := proto.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("%w: %w", errLayout, err)
	}
	s.mu.Lock()
	from := s.imports[record.ProcessID(m.From)]
	s.mu.Unlock()
	if record.ProcessID(m.From) == id || from == nil || !from.mapped {
		return fmt.Errorf("%w: pages of process %d, whose memory did not come before", errLayout, m.From)
	}
	in := inherited{from: record.ProcessID(m.From)}
	for _, r := range m.Range {
		x := run{r.Start, r.Start + r.Length}
		if !validRange(r.Start, r.Length) || !from.contains(x) {
			return fmt.Errorf("%w: pages %#x-%#x are outside of what process %d has", errLayout, x.start, x.end, m.From)
		}
		if n := len(in.runs); n > 0 && x.start < in.runs[n-1].end {
			return fmt.Errorf("%w: inherited pages are not in ascending order at %#x", errLayout, x.start)
		}
		in.runs = append(in.runs, x)
	}
	l.inherits = append(l.inherits, in)
	return nil
}

// keep decides which mappings stay as the fork has left them: those of which
// pages are inherited from the process that this one is a copy of, and that are
// made of mappings of the same kind. They are in ascending order.
func (s *Subsystem) keep(t *target.Task, l *layout) []*state.Mapping {
	s.mu.Lock()
	c := s.copies[t]
	s.mu.Unlock()
	if c.layout == nil || c.layout.version.Load() != c.version {
		return nil
	}
	runs := s.keptRuns(c.layout, l)
	var out []*state.Mapping
	for _, m := range l.mappings {
		if hasPages(m) && c.layout.covers(m) && intersects(runs, m.Start, end(m)) {
			out = append(out, m)
		}
	}
	return out
}

// keptRuns are the inherited runs that the fork may have brought.
func (s *Subsystem) keptRuns(maker, l *layout) []run {
	var runs []run
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range l.inherits {
		if s.imports[in.from] == maker {
			runs = append(runs, in.runs...)
		}
	}
	slices.SortFunc(runs, func(a, b run) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	return runs
}

func intersects(runs []run, start, end uint64) bool {
	i, _ := slices.BinarySearchFunc(runs, start, func(r run, at uint64) int {
		if r.end <= at {
			return -1
		}
		return 1
	})
	return i < len(runs) && runs[i].start < end
}

// covers: all of m is mapped here, too, in a way from which m can be made.
func (l *layout) covers(m *state.Mapping) bool {
	at := m.Start
	first := sort.Search(len(l.mappings), func(i int) bool { return end(l.mappings[i]) > at })
	for _, o := range l.mappings[first:] {
		if o.Start > at || !alike(o, m) {
			return false
		}
		if at = end(o); at >= end(m) {
			return true
		}
	}
	return false
}

// alike: of the same kind but for what is set in the end.
func alike(a, b *state.Mapping) bool {
	sameFile := a.Path == b.Path && a.Object == b.Object && a.FileSize == b.FileSize && a.Offset-a.Start == b.Offset-b.Start
	if a.Backing == state.Backing_BACKING_ANONYMOUS {
		sameFile = true
	}
	return a.Backing == b.Backing && a.Shared == b.Shared && sameFile && a.NoReserve == b.NoReserve && a.GrowsDown == b.GrowsDown && a.HugePageSize == b.HugePageSize && a.Unaccounted == b.Unaccounted &&
		slices.Equal(huge(a), huge(b)) && a.MemoryPolicy == b.MemoryPolicy && bytes.Equal(a.MemoryNodes, b.MemoryNodes)
}

// huge is the advice that is given before the fill.
func huge(m *state.Mapping) (out []uint32) {
	for _, a := range m.Advice {
		if beforeFill(a) {
			out = append(out, a)
		}
	}
	return out
}

// unmapBut removes every mapping of the task but the engine's own and those that
// are kept, which it makes what a fill needs.
func unmapBut(t *target.Task, keep []*state.Mapping) error {
	maps, err := t.Proc.Maps()
	if err != nil {
		return err
	}
	held := make([]run, 0, len(keep))
	for _, m := range keep {
		held = append(held, run{m.Start, end(m)})
	}
	scratch := t.Traced.ScratchRanges()
	var calls []tracer.Call
	for _, m := range maps {
		ours := m.Kind == procfs.MapVSyscall
		for _, r := range scratch {
			ours = ours || m.Start < r.End && r.Start < m.End
		}
		if ours {
			continue
		}
		at := m.Start
		for i := firstBehind(held, at); i < len(held) && held[i].start < m.End; i++ {
			if at < held[i].start {
				calls = append(calls, tracer.Munmap(at, held[i].start-at))
			}
			at = min(held[i].end, m.End)
		}
		if at < m.End {
			calls = append(calls, tracer.Munmap(at, m.End-at))
		}
	}
	for _, m := range keep {
		calls = append(calls, tracer.Mprotect(m.Start, m.Length, fillProtection(m)))
	}
	return t.Run(calls)
}

// firstBehind is the index of the first run that ends behind at.
func firstBehind(runs []run, at uint64) int {
	i, _ := slices.BinarySearchFunc(runs, at, func(r run, at uint64) int {
		if r.end <= at {
			return -1
		}
		return 1
	})
	return i
}

// settleInherited empties the kept mappings of what is not inherited, and copies
// what is inherited and was not kept.
func (s *Subsystem) settleInherited(t *target.Task, l *layout, keep []*state.Mapping) error {
	if len(l.inherits) == 0 {
		return nil
	}
	var there []run // pages that the fork has brought
	if len(keep) > 0 {
		s.mu.Lock()
		maker := s.copies[t].layout
		s.mu.Unlock()
		runs := s.keptRuns(maker, l)
		var calls []tracer.Call
		for _, m := range keep {
			at := m.Start
			for i := firstBehind(runs, at); i < len(runs) && runs[i].start < end(m); i++ {
				start, stop := max(runs[i].start, m.Start), min(runs[i].end, end(m))
				if at < start {
					calls = append(calls, tracer.Syscall(unix.SYS_MADVISE, at, start-at, unix.MADV_DONTNEED))
				}
				there = append(there, run{start, stop})
				at = stop
			}
			if at < end(m) {
				calls = append(calls, tracer.Syscall(unix.SYS_MADVISE, at, end(m)-at, unix.MADV_DONTNEED))
			}
		}
		if err := t.Run(calls); err != nil {
			return fmt.Errorf("empty what is not inherited: %w", err)
		}
	}
	for _, in := range l.inherits {
		for _, r := range in.runs {
			if !l.contains(r) {
				return fmt.Errorf("%w: inherited pages %#x-%#x are outside of its mappings", errLayout, r.start, r.end)
			}
			for _, rest := range without(r, there) {
				if err := s.copyPages(t, l, in.from, rest); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// without is what of r is in none of the runs, which are in ascending order.
func without(r run, runs []run) (out []run) {
	at := r.start
	for i := firstBehind(runs, at); i < len(runs) && runs[i].start < r.end; i++ {
		if at < runs[i].start {
			out = append(out, run{at, runs[i].start})
		}
		at = min(runs[i].end, r.end)
	}
	if at < r.end {
		out = append(out, run{at, r.end})
	}
	return out
}

// copyPages copies pages from another process of the image.
func (s *Subsystem) copyPages(t *target.Task, l *layout, from record.ProcessID, r run) error {
	o := s.env.Frame.Task(from)
	if o == nil || o.Traced == nil {
		return fmt.Errorf("process %d: %w", from, target.ErrNotStopped)
	}
	mem, err := os.Open(o.Proc.Path("mem"))
	if err != nil {
		return fmt.Errorf("open the memory of process %d: %w", from, err)
	}
	defer mem.Close()
	buf := buffers.Get()
	defer buffers.Put(buf)
	for r.start < r.end {
		part := run{r.start, min(r.end, r.start+chunkBytes)}
		b := buf[:part.bytes()]
		if err := readRuns(o.Pid, mem, true, []run{part}, b); err != nil {
			return fmt.Errorf("copy pages of process %d: %w", from, err)
		}
		if err := s.writePages(t, l, []run{part}, b); err != nil {
			return err
		}
		r.start = part.end
	}
	return nil
}
