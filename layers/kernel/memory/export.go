// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// stepBytes is what one export step copies at most: a fraction of a second's
// work, so that progress and cancellation are seen in time.
const stepBytes = 128 << 20

// mappingsPerRecord keeps a record of mappings below record.MaxPayload even if
// every path has PATH_MAX bytes.
const mappingsPerRecord = 512

// export is one process on its way out.
type export struct {
	mappings []*state.Mapping
	blank    pageSet // see copier
	chunks   []chunk
	finder   *finder
	next     int // the first chunk that was not exported yet
	done     bool
}

// Checkpoint exports a process: its layout with the first residual step, its
// pages with that and the following ones.
func (s *Subsystem) Checkpoint(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if step.Stage == record.StageEarly && step.Process != record.Shared {
		return s.exportEarly(ctx, step, out)
	}
	if step.Stage == record.StageLeft && step.Process != record.Shared {
		return s.exportLeft(ctx, step.Process, out)
	}
	if step.Stage != record.StageResidual {
		return record.Progress{Done: true}, nil
	}
	if step.Process == record.Shared {
		s.leaving.Store(step.Leave)
		return s.exportShared(ctx, out)
	}
	return s.exportProcess(ctx, step.Process, out)
}

// family puts the processes of an export in order: what a process shares with
// its parent is carried with the parent, whose memory comes before. Where processes
// have their memory in common, one stands for them (target.Process.Space), and the
// others are not in it.
type family struct {
	parents map[record.ProcessID]record.ProcessID
	done    map[record.ProcessID]chan struct{} // closed when all of it was pushed
}

// findFamily looks at the stopped processes.
func findFamily(processes []*target.Process) (*family, error) {
	f := &family{parents: map[record.ProcessID]record.ProcessID{}, done: map[record.ProcessID]chan struct{}{}}
	byPid := map[int]record.ProcessID{}
	for _, p := range processes {
		byPid[p.Group] = p.Space().ID
		if p.Space() == p {
			f.done[p.ID] = make(chan struct{})
		}
	}
	for _, p := range processes {
		if p.Space() != p {
			continue
		}
		st, err := p.Proc.Status()
		if err != nil {
			return nil, err
		}
		if id, ok := byPid[st.PPid]; ok {
			f.parents[p.ID] = id
		}
	}
	return f, nil
}

// await returns when the process's parent was exported. Control begins with the
// parents, so somebody is at it.
func (f *family) await(ctx context.Context, id record.ProcessID) error {
	parent, ok := f.parents[id]
	if !ok {
		return nil
	}
	select {
	case <-f.done[parent]:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Subsystem) exported(id record.ProcessID) *export {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exports[id]
}

// exportProcess makes one step with one process.
func (s *Subsystem) exportProcess(ctx context.Context, id record.ProcessID, out record.Sink) (record.Progress, error) {
	p := s.env.Source.Process(id)
	if p != nil && p.Traced != nil && p.Space() != p {
		return record.Progress{Done: true}, nil // it has no memory of its own
	}
	if p == nil || p.Traced == nil || s.family == nil || s.family.done[id] == nil {
		return record.Progress{}, fmt.Errorf("memory: process %d: %w", id, target.ErrNotStopped)
	}
	e := s.exported(id)
	if e == nil {
		if err := s.family.await(ctx, id); err != nil {
			return record.Progress{}, err
		}
		var err error
		if e, err = s.exportLayout(ctx, p, out); err != nil {
			return record.Progress{}, fmt.Errorf("memory: pid %d: %w", p.Pid, err)
		}
		s.mu.Lock()
		s.exports[id] = e
		s.mu.Unlock()
	}
	n, err := s.exportPages(ctx, p, e, out)
	if err != nil {
		return record.Progress{}, fmt.Errorf("memory: pid %d: %w", p.Pid, err)
	}
	done := e.next == len(e.chunks)
	if done && !e.done {
		e.done = true
		close(s.family.done[id])
	}
	return record.Progress{Done: done, Advanced: true, Bytes: n}, nil
}

// exportLayout reads and pushes the mappings and plans the pages: all of them, or
// those that the destination lacks after the early rounds.
func (s *Subsystem) exportLayout(ctx context.Context, p *target.Process, out record.Sink) (*export, error) {
	s.mu.Lock()
	a := s.aheads[p.ID]
	s.mu.Unlock()
	if a == nil {
		a = &ahead{}
	}
	if !p.Ahead || a.incarnation != p.Incarnation {
		a.sent, a.have, a.filled = nil, nil, nil
	}
	if p.SharesMemory() {
		a.have = nil // another process may have had a device write to it: see direct.go
	}
	smaps, err := a.stoppedSmaps(s, p)
	if err != nil {
		return nil, err
	}
	for i := range smaps {
		if err := recognise(&smaps[i].Mapping); err != nil {
			return nil, err
		}
	}
	space, mappings, err := s.describe(p, smaps)
	if err != nil {
		return nil, err
	}
	if err := askPolicies(p, mappings); err != nil {
		return nil, err
	}
	space.MlockFuture = a.lockFuture
	if err := s.nameShared(mappings); err != nil {
		return nil, err
	}
	e := &export{mappings: mappings, blank: blanks(mappings)}
	if e.chunks, err = s.pushProcess(ctx, p, a, space, mappings, out); err != nil {
		return nil, err
	}
	var total uint64
	for _, c := range e.chunks {
		total += c.bytes
	}
	e.finder = s.newFinder(total)
	s.total.Add(total)
	s.entities.Add(uint64(len(mappings)))
	return e, nil
}

// withoutScratch drops the mappings that injections made.
func withoutScratch(smaps []procfs.SmapsMapping, scratch []tracer.Range) []procfs.SmapsMapping {
	return slices.DeleteFunc(smaps, func(m procfs.SmapsMapping) bool { return within(m.Start, m.End, scratch) })
}

// within: the mapping is one of those that injections made.
func within(start, end uint64, scratch []tracer.Range) bool {
	return slices.ContainsFunc(scratch, func(r tracer.Range) bool { return start >= r.Start && end <= r.End })
}

// pushProcess sends the layout of a process and plans its pages. What it has from
// others comes before its mappings; a process that was copied ahead is the first
// one, and has nothing from others.
func (s *Subsystem) pushProcess(ctx context.Context, p *target.Process, a *ahead, space *state.AddressSpace, mappings []*state.Mapping, out record.Sink) ([]chunk, error) {
	if a.sent != nil || s.leaving.Load() && !p.SharesMemory() {
		// What a process left behind nobody can copy from it.
		if err := pushLayout(ctx, p.ID, space, mappings, out); err != nil {
			return nil, err
		}
		return s.residual(ctx, p, a, mappings, out)
	}
	chunks, err := planPages(p.Pid, mappings)
	if err != nil {
		return nil, err
	}
	if err := pushSpace(ctx, p.ID, space, out); err != nil {
		return nil, err
	}
	if chunks, err = s.inherit(ctx, p, chunks, out); err != nil {
		return nil, err
	}
	return chunks, pushMappings(ctx, p.ID, mappings, out)
}

// pushLayout sends the records of kind 1 and 2.
func pushLayout(ctx context.Context, id record.ProcessID, space *state.AddressSpace, mappings []*state.Mapping, out record.Sink) error {
	if err := pushSpace(ctx, id, space, out); err != nil {
		return err
	}
	return pushMappings(ctx, id, mappings, out)
}

func pushSpace(ctx context.Context, id record.ProcessID, space *state.AddressSpace, out record.Sink) error {
	return pushMessage(ctx, out, record.Header{Subsystem: Name, Process: id, Kind: KindAddressSpace}, space)
}

// pushMappings sends the records of kind 2.
func pushMappings(ctx context.Context, id record.ProcessID, mappings []*state.Mapping, out record.Sink) error {
	for len(mappings) > 0 {
		n := min(len(mappings), mappingsPerRecord)
		h := record.Header{Subsystem: Name, Process: id, Kind: KindMappings, Entity: mappings[0].Start}
		if err := pushMessage(ctx, out, h, &state.Mappings{Mapping: mappings[:n]}); err != nil {
			return err
		}
		mappings = mappings[n:]
	}
	return nil
}

func pushMessage(ctx context.Context, out record.Sink, h record.Header, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", h, err)
	}
	return out.Push(ctx, &record.Record{Header: h, Payload: b})
}

// planPages lists the pages that hold something of their own: of private
// mappings those that are not the file's and not the shared zero page.
func planPages(pid int, mappings []*state.Mapping) ([]chunk, error) {
	pm, err := openPagemap(pid)
	if err != nil {
		return nil, err
	}
	defer pm.Close()
	var pl planner
	for _, sp := range spans(mappings) {
		sel := content
		if sp.file {
			sel.none |= pageIsFile
		}
		if err := pm.scan(sp.start, sp.end, sel, pl.add); err != nil {
			return nil, err
		}
	}
	pl.close()
	fullFirst(pl.chunks)
	return pl.chunks, nil
}

// span is a stretch of mappings that one scan covers.
type span struct {
	run
	// file: some of its pages may be the file's. To tell which, the kernel looks at
	// each page's own description beside the page table, which takes several times
	// as long: memory without a file is not asked for it.
	file bool
}

// spans joins neighbouring mappings of a kind whose pages are carried, so that one
// scan covers many.
func spans(mappings []*state.Mapping) []span {
	var out []span
	for _, m := range mappings {
		if !hasPages(m) {
			continue
		}
		end, file := m.Start+m.Length, m.Backing != state.Backing_BACKING_ANONYMOUS
		if n := len(out); n > 0 && out[n-1].end == m.Start && out[n-1].file == file {
			out[n-1].end = end
			continue
		}
		out = append(out, span{run{m.Start, end}, file})
	}
	return out
}

// hasPages: the mapping can hold pages that only memory has.
func hasPages(m *state.Mapping) bool {
	return !m.Shared && m.Backing != state.Backing_BACKING_DROPPABLE && m.Backing != state.Backing_BACKING_DEVICE
}

// exportPages copies chunks by several workers until one step is full.
func (s *Subsystem) exportPages(ctx context.Context, p *target.Process, e *export, out record.Sink) (uint64, error) {
	end, planned := e.next, uint64(0)
	for end < len(e.chunks) && planned < stepBytes {
		planned += e.chunks[end].bytes
		end++
	}
	c := &copier{s: s, p: p, out: out, blank: e.blank, finder: e.finder}
	if err := c.send(ctx, e.chunks[e.next:end]); err != nil {
		return 0, err
	}
	e.next = end
	return planned, nil
}
