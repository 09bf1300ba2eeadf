// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// remapAll turns the mappings that the task has from an earlier version of the
// layout into those of this one, and keeps the pages of what stays.
func (s *Subsystem) remapAll(t *target.Task, l *layout) error {
	if err := t.Traced.Avoid(l.ranges()...); err != nil {
		return err
	}
	// New mappings join those that are there only while nobody serves these.
	if err := l.fill.reset(); err != nil {
		return err
	}
	stays := kept(l.live, l.mappings)
	var calls []tracer.Call
	for _, r := range addresses(l.live).subtract(stays) {
		calls = append(calls, tracer.Munmap(r.start, r.bytes()))
	}
	// One of another kernel lies wherever there was room: it has to make room again.
	moved := l.space.VdsoStart != l.liveVDSO.start || l.space.VdsoLength != l.liveVDSO.bytes() || l.kernelVDSO.bytes() > 0
	for _, r := range []run{l.liveVDSO, l.kernelVDSO} {
		if moved && r.bytes() > 0 {
			calls = append(calls, tracer.Munmap(r.start, r.bytes()))
		}
	}
	if err := t.Run(calls); err != nil {
		return fmt.Errorf("unmap what is gone: %w", err)
	}
	if moved {
		if err := s.mapVDSO(t, l); err != nil {
			return err
		}
	}
	return s.mapFresh(t, l, pieces(l.mappings, stays))
}

// pieces are the parts of mappings that are not kept, as mappings of their own.
func pieces(mappings []*state.Mapping, stays pageSet) []*state.Mapping {
	var out []*state.Mapping
	for _, m := range mappings {
		whole := pageSet{{m.Start, end(m)}}
		for len(stays) > 0 && stays[0].end <= m.Start {
			stays = stays[1:]
		}
		for _, r := range whole.subtract(stays) {
			if r == whole[0] {
				out = append(out, m)
				continue
			}
			part := proto.Clone(m).(*state.Mapping)
			part.Start, part.Length, part.Offset = r.start, r.bytes(), m.Offset+(r.start-m.Start)
			out = append(out, part)
		}
	}
	return out
}

// dropPages has the task empty pages of private memory.
func dropPages(t *target.Task, runs []run) error {
	calls := make([]tracer.Call, len(runs))
	for i, r := range runs {
		calls[i] = tracer.Syscall(unix.SYS_MADVISE, r.start, r.bytes(), unix.MADV_DONTNEED)
	}
	if err := t.Run(calls); err != nil {
		return fmt.Errorf("drop pages: %w", err)
	}
	return nil
}
