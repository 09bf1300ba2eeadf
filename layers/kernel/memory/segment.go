// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// System V shared memory is made and filled by the subsystem ipc, before any
// mapping; here it is attached. shmat(2) maps all of a segment, whatever the
// process has done to its mapping since: detached or protected parts of it, or
// moved some.

// Values of include/uapi/linux/{shm,mman}.h.
const (
	shmRDOnly     = 0o10000
	mremapMayMove = 1
	mremapFixed   = 2
)

// mayAttach refuses segments that the image does not hold.
func (s *Subsystem) mayAttach(m *procfs.SmapsMapping) error {
	if s.env.Source.OwnIPC {
		return nil
	}
	return &refusal{
		fmt.Sprintf("mapping %#x-%#x of %s", m.Start, m.End, m.Path),
		"it is System V shared memory of an IPC namespace that is not the container's own", "give the container an IPC namespace of its own",
	}
}

// attachment is one shmat(2), as far as it can be told from its mappings.
type attachment struct {
	id       int32
	base     uint64 // where the segment's first byte is, or would be
	writable bool
}

// attachSegments attaches what the mappings, some of all, name.
func (s *Subsystem) attachSegments(t *target.Task, mappings, all []*state.Mapping) error {
	var order []attachment
	parts := map[attachment][]*state.Mapping{}
	for _, m := range mappings {
		if m.Backing != state.Backing_BACKING_SYSV {
			continue
		}
		g, ok := s.env.Frame.Segment(int32(m.Object))
		if !ok || m.Offset+m.Length > g.Size || m.HugePageSize != g.Page {
			return fmt.Errorf("%w: mapping %#x of System V shared memory %d, which is not in the image, shorter or of other pages", errLayout, m.Start, m.Object)
		}
		a := attachment{int32(m.Object), m.Start - m.Offset, m.MayWrite}
		if parts[a] == nil {
			order = append(order, a)
		}
		parts[a] = append(parts[a], m)
	}
	for _, a := range order {
		g, _ := s.env.Frame.Segment(a.id)
		if err := a.attach(t, g.Size, parts[a], all); err != nil {
			return fmt.Errorf("attach System V shared memory %d at %#x: %w", a.id, a.base, err)
		}
	}
	return nil
}

func wholePages(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// attach attaches the segment where it was, and detaches the parts that the
// process does not have; or, if others have come to lie there, part by part.
func (a attachment) attach(t *target.Task, size uint64, parts, all []*state.Mapping) error {
	if !a.free(size, all) {
		return a.attachParts(t, size, parts)
	}
	calls := []tracer.Call{a.call(a.base)}
	at := a.base
	for _, m := range parts {
		if at < m.Start {
			calls = append(calls, tracer.Munmap(at, m.Start-at))
		}
		at = end(m)
	}
	if at < a.base+size {
		calls = append(calls, tracer.Munmap(at, a.base+size-at))
	}
	return t.Run(calls)
}

// free: nothing of the image but this segment's parts lies where it is.
func (a attachment) free(size uint64, all []*state.Mapping) bool {
	if !validRange(a.base, size) {
		return false
	}
	for _, m := range all {
		mine := m.Backing == state.Backing_BACKING_SYSV && attachment{int32(m.Object), m.Start - m.Offset, m.MayWrite} == a
		if !mine && m.Start < a.base+size && a.base < end(m) {
			return false
		}
	}
	return true
}

func (a attachment) call(at uint64) tracer.Call {
	flags := uint64(0)
	if !a.writable {
		flags = shmRDOnly
	}
	return tracer.Syscall(unix.SYS_SHMAT, uint64(a.id), at, flags)
}

// attachParts attaches the segment anywhere for each part, moves that to its
// place, which it holds free meanwhile, and detaches the rest.
func (a attachment) attachParts(t *target.Task, size uint64, parts []*state.Mapping) error {
	for _, m := range parts {
		calls := []tracer.Call{
			tracer.Mmap(m.Start, m.Length, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_FIXED_NOREPLACE, -1, 0),
			a.call(0),
		}
		if err := t.Run(calls); err != nil {
			return err
		}
		at := uint64(calls[1].Ret)
		calls = []tracer.Call{
			tracer.Syscall(unix.SYS_MREMAP, at+m.Offset, m.Length, m.Length, mremapMayMove|mremapFixed, m.Start),
			tracer.Munmap(at, size),
		}
		if err := t.Run(calls); err != nil {
			return err
		}
	}
	return nil
}
