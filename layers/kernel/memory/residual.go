// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// stoppedSmaps are the mappings of the stopped process, without those that
// injections made and without the traces of the tracking. Reading smaps takes 10 ms
// for each gigabyte, so what the last round has read is used where nothing shows
// that it has changed since: advice that was given in between to a whole mapping
// is not seen (madvise(2); locks are, by their sum).
func (a *ahead) stoppedSmaps(s *Subsystem, p *target.Process) ([]procfs.SmapsMapping, error) {
	smaps, err := a.unchanged(p)
	if err == nil && smaps == nil {
		smaps, err = s.readSmaps(p)
	}
	if err == nil {
		a.lockFuture, err = lockedFuture(p, smaps)
	}
	if err != nil {
		return nil, err
	}
	smaps = withoutScratch(smaps, p.Traced.ScratchRanges())
	for i := range smaps {
		if m := &smaps[i]; m.Flags.Has(procfs.VMUffdWP) && a.tracks(m) {
			m.Flags &^= procfs.VMUffdWP
		}
	}
	return smaps, nil
}

// unchanged are the mappings as the last round has seen them, nil if they have
// changed.
func (a *ahead) unchanged(p *target.Process) ([]procfs.SmapsMapping, error) {
	if a.smaps == nil {
		return nil, nil
	}
	maps, err := p.Proc.Maps()
	if err != nil {
		return nil, err
	}
	locked, err := lockedBytes(p)
	if err != nil {
		return nil, err
	}
	scratch := p.Traced.ScratchRanges()
	maps = slices.DeleteFunc(maps, func(m procfs.Mapping) bool { return within(m.Start, m.End, scratch) })
	// An earlier engine's scratch memory may have been there then.
	old := slices.DeleteFunc(slices.Clone(a.smaps), func(m procfs.SmapsMapping) bool { return within(m.Start, m.End, scratch) })
	if locked != a.locked || !sameMappings(maps, old) {
		return nil, nil
	}
	return old, nil
}

// lockedBytes is the memory that mlock(2) holds.
func lockedBytes(p *target.Process) (uint64, error) {
	st, err := p.Proc.Status()
	if err != nil {
		return 0, err
	}
	return st.Vm.Locked, nil
}

// tracks: it is this event's tracking that the mapping shows. Registering again
// what is registered changes nothing, and what is another's is refused (EBUSY).
func (a *ahead) tracks(m *procfs.SmapsMapping) bool {
	return a.track != nil && register(a.track, run{m.Start, m.End}) == nil
}

// residual plans the pages of the stopped process that the destination lacks,
// without those that stay behind, and has it drop those that are gone.
func (s *Subsystem) residual(ctx context.Context, p *target.Process, a *ahead, mappings []*state.Mapping, out record.Sink) ([]chunk, error) {
	var copied, others []*state.Mapping
	for _, m := range mappings {
		if isEarly(m) {
			copied = append(copied, m)
		} else {
			others = append(others, m)
		}
	}
	st, err := p.Proc.Status()
	if err != nil {
		return nil, err
	}
	leaving := s.leaving.Load() && !p.SharesMemory()
	var may pageSet
	if leaving {
		may = mayStay(copied)
	}
	// The short way mistakes pages that were swapped out for protected ones (up to
	// Linux 6.17, fs/proc/task_mmu.c).
	seen, err := a.look(p, addresses(copied), a.sent != nil && st.Vm.Swap == 0, may)
	if err != nil {
		return nil, err
	}
	a.settle(&seen)
	stays := kept(a.sent, mappings)
	have, filled := a.have.subtract(a.unsettled).intersect(stays), a.filled.intersect(stays)
	if err := pushDropped(ctx, p.ID, filled.subtract(seen.present), out); err != nil {
		return nil, err
	}
	lacks := seen.dirty.union(seen.present.subtract(have))
	if leaving {
		if lacks, err = s.leave(ctx, p, may, &seen, lacks, out); err != nil {
			return nil, err
		}
	}
	rest, err := planPages(p.Pid, others)
	if err != nil {
		return nil, err
	}
	return append(plan(lacks), rest...), nil
}

// kept are the pages that a process keeps where mappings old become mappings
// new: those of private memory that stays.
func kept(old, new []*state.Mapping) (s pageSet) {
	for len(old) > 0 && len(new) > 0 {
		o, n := old[0], new[0]
		if sameMemory(o, n) {
			s = s.put(run{max(o.Start, n.Start), min(end(o), end(n))})
		}
		if end(o) < end(n) {
			old = old[1:]
		} else {
			new = new[1:]
		}
	}
	return s
}

// sameMemory: the mappings are alike in what cannot be changed after mmap(2).
func sameMemory(o, n *state.Mapping) bool {
	return isEarly(o) && isEarly(n) && o.GrowsDown == n.GrowsDown && o.NoReserve == n.NoReserve && o.Unaccounted == n.Unaccounted
}

func equalMappings(a, b []*state.Mapping) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !proto.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// pushDropped tells the destination of pages that hold nothing any more. It is
// sent in each round, since it keeps the pages of one round behind those of the
// round before: see Concurrent.
func pushDropped(ctx context.Context, id record.ProcessID, s pageSet, out record.Sink) error {
	return pushRuns(ctx, record.Header{Subsystem: Name, Process: id, Kind: KindDropped}, s, out)
}

// pushRuns sends a list of runs, in several records if need be and in one at
// least.
func pushRuns(ctx context.Context, h record.Header, s pageSet, out record.Sink) error {
	for first := true; first || len(s) > 0; first = false {
		n := min(len(s), maxDropped)
		if n > 0 {
			h.Entity = s[0].start
		}
		if err := out.Push(ctx, &record.Record{Header: h, Payload: encodeRuns(s[:n])}); err != nil {
			return err
		}
		s = s[n:]
	}
	return nil
}

// receiveDropped empties pages: of anonymous memory they are zero afterwards.
func (s *Subsystem) receiveDropped(t *target.Task, l *layout, in *record.Record) error {
	runs, err := decodeRuns(in.Payload)
	if err != nil {
		return fmt.Errorf("%w: %w", errLayout, err)
	}
	if len(runs) == 0 {
		return nil
	}
	if !l.mapped || l.space.Mappings != uint32(len(l.mappings)) {
		return fmt.Errorf("%w: pages are dropped before the mappings", errLayout)
	}
	for _, r := range runs {
		if !l.contains(r) {
			return fmt.Errorf("%w: dropped pages %#x-%#x are outside of its mappings", errLayout, r.start, r.end)
		}
	}
	l.version.Add(1)
	return dropPages(t, runs)
}
