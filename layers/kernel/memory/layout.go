// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"path"
	"sort"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Limits of what an image may ask for.
const (
	// maxMappings is far above vm.max_map_count's default of 65,530.
	maxMappings = 1 << 20
	// userEnd is the end of user memory with 4-level page tables; 5-level
	// addresses are given only to those who ask (arch/x86/mm.rst).
	userEnd = 0x7ffffffff000
	// maxAuxv is the kernel's: AT_VECTOR_SIZE words.
	maxAuxv = 2 * 8 * (20 + 8 + 1)
	// maxVDSO is far above what any kernel has.
	maxVDSO = 1 << 20
)

// layout is one process on its way in. Everything in it has been validated.
type layout struct {
	task     *target.Task
	space    *state.AddressSpace
	mappings []*state.Mapping
	// mapped: the task has the image's mappings, pages may be written.
	mapped bool
	built  bool
	// fill writes its pages.
	fill fill
	// left are the pages that come when the copy runs, by the filler.
	left   pageSet
	filler *filler
	// live is what the task has from the version of the layout before: while a
	// process is copied ahead each change of its mappings is a new version.
	live     []*state.Mapping
	liveVDSO run
	// kernelVDSO is where the running kernel's is, if it is not the image's.
	kernelVDSO run
	// inherits are pages that it has from others.
	inherits []inherited
	// populated are the huge pages that the task was made to allocate.
	populated hugeSet
	// huge: some of its mappings have huge pages. Set before pages come.
	huge bool
	// version counts changes of the task's memory.
	version atomic.Uint64
}

// errLayout marks an image that contradicts itself.
var errLayout = errors.New("the image's memory layout is invalid")

// receiveSpace takes the record of kind 1.
func (l *layout) receiveSpace(payload []byte) error {
	if l.space != nil && (!l.mapped || l.built) {
		return fmt.Errorf("%w: a second address space before the first is whole", errLayout)
	}
	sp := &state.AddressSpace{}
	if err := proto.Unmarshal(payload, sp); err != nil {
		return fmt.Errorf("%w: %w", errLayout, err)
	}
	switch {
	case sp.Mappings == 0 || sp.Mappings > maxMappings:
		return fmt.Errorf("%w: %d mappings", errLayout, sp.Mappings)
	case len(sp.Auxv) > maxAuxv || len(sp.Auxv)%16 != 0:
		return fmt.Errorf("%w: auxiliary vector of %d bytes", errLayout, len(sp.Auxv))
	case sp.MlockFuture&^(unix.MCL_FUTURE|mclOnFault) != 0:
		return fmt.Errorf("%w: flags %#x for new mappings", errLayout, sp.MlockFuture)
	case !validPath(sp.Exe):
		return fmt.Errorf("%w: executable %q", errLayout, sp.Exe)
	case uint64(len(sp.VdsoCode)) > min(sp.VdsoLength, maxVDSO) || len(sp.VdsoCode)%pageSize != 0 || len(sp.VdsoSha256) > sha256.Size:
		return fmt.Errorf("%w: vDSO of %d bytes in %d", errLayout, len(sp.VdsoCode), sp.VdsoLength)
	case !validRange(sp.VdsoStart, sp.VdsoLength) && sp.VdsoLength != 0:
		return fmt.Errorf("%w: vDSO at %#x, %#x bytes", errLayout, sp.VdsoStart, sp.VdsoLength)
	}
	l.space, l.mappings, l.mapped = sp, nil, false
	return nil
}

// receiveMappings takes a record of kind 2; done when all have come.
func (l *layout) receiveMappings(payload []byte) (done bool, err error) {
	if l.space == nil || l.mapped {
		return false, fmt.Errorf("%w: mappings in the wrong place", errLayout)
	}
	var ms state.Mappings
	if err := proto.Unmarshal(payload, &ms); err != nil {
		return false, fmt.Errorf("%w: %w", errLayout, err)
	}
	if len(l.mappings)+len(ms.Mapping) > int(l.space.Mappings) {
		return false, fmt.Errorf("%w: more than the %d mappings announced", errLayout, l.space.Mappings)
	}
	for _, m := range ms.Mapping {
		if err := validMapping(m); err != nil {
			return false, err
		}
		if n := len(l.mappings); n > 0 && m.Start < end(l.mappings[n-1]) {
			return false, fmt.Errorf("%w: mapping %#x overlaps the one before it", errLayout, m.Start)
		}
		if m.Start < l.space.VdsoStart+l.space.VdsoLength && l.space.VdsoStart < end(m) {
			return false, fmt.Errorf("%w: mapping %#x overlaps the vDSO", errLayout, m.Start)
		}
		l.mappings = append(l.mappings, m)
	}
	return len(l.mappings) == int(l.space.Mappings), nil
}

func end(m *state.Mapping) uint64 { return m.Start + m.Length }

func validRange(start, length uint64) bool {
	return start%pageSize == 0 && length%pageSize == 0 && length > 0 && start >= pageSize && start < userEnd && length <= userEnd-start
}

// validPath: absolute, clean, and free of what a path cannot hold. It is used
// inside the container's root only, so ".." could do no harm; it is refused as
// a sign of a forged image.
func validPath(p string) bool {
	return strings.HasPrefix(p, "/") && len(p) < 4096 && path.Clean(p) == p && strings.IndexByte(p, 0) < 0
}

// validMapping checks one mapping on its own.
func validMapping(m *state.Mapping) error {
	bad := func(what string) error { return fmt.Errorf("%w: mapping %#x: %s", errLayout, m.Start, what) }
	if !validRange(m.Start, m.Length) {
		return bad(fmt.Sprintf("%#x bytes are no range of user pages", m.Length))
	}
	if m.Protection > 7 || m.Locked > 2 || len(m.Name) > 80 {
		return bad("protection, lock or name out of range")
	}
	switch m.Backing {
	case state.Backing_BACKING_ANONYMOUS, state.Backing_BACKING_DROPPABLE:
		if m.Shared {
			return bad("private memory that is shared")
		}
	case state.Backing_BACKING_FILE:
		if !validPath(m.Path) || m.Offset%pageSize != 0 || m.Offset+m.Length < m.Offset {
			return bad("file or offset")
		}
		if m.GrowsDown {
			return bad("a file that grows down")
		}
	case state.Backing_BACKING_SHARED_ANONYMOUS:
		if !m.Shared || m.Object == 0 || m.Offset%pageSize != 0 || m.Offset+m.Length < m.Offset || m.GrowsDown {
			return bad("object or offset of shared memory")
		}
	case state.Backing_BACKING_OBJECT:
		if m.Object == 0 || m.Offset%pageSize != 0 || m.Offset+m.Length < m.Offset || m.GrowsDown {
			return bad("object or offset of a file")
		}
	case state.Backing_BACKING_HUGETLB:
		if m.Shared != (m.Object != 0) || !m.Shared && m.Offset != 0 || m.Offset+m.Length < m.Offset || m.GrowsDown || m.HugePageSize == 0 {
			return bad("object, offset or size of huge pages")
		}
	case state.Backing_BACKING_AIO:
		if !m.Shared || m.GrowsDown || m.Object < 3 || m.Object > maxRing || m.Length != ringBytes(m.Object) || len(m.AioEvents)%eventSize != 0 || len(m.AioEvents) > maxEvents*eventSize {
			return bad("size or events of an AIO ring")
		}
	case state.Backing_BACKING_SYSV:
		if !m.Shared || m.Object > math.MaxInt32 || m.Offset%pageSize != 0 || m.Offset > m.Start || m.Offset+m.Length < m.Offset || m.GrowsDown {
			return bad("id or offset of a System V segment")
		}
	default:
		return bad("backing " + m.Backing.String() + " is not known to this version")
	}
	if err := validHuge(m); err != "" {
		return bad(err)
	}
	if len(m.MemoryNodes) > nodeBytes || m.MemoryPolicy == 0 && len(m.MemoryNodes) > 0 {
		return bad("memory policy")
	}
	for _, a := range m.Advice {
		if !knownAdvice(a) {
			return bad(fmt.Sprintf("advice %d", a))
		}
	}
	for _, g := range m.Guard {
		if !validRange(g.Start, g.Length) || g.Start < m.Start || g.Start+g.Length > end(m) {
			return bad("guard region outside of it")
		}
	}
	return nil
}

func knownAdvice(a uint32) bool {
	for _, k := range advices {
		if k.advice == a {
			return true
		}
	}
	return false
}

// contains reports whether pages may be written to r: it lies wholly in
// mappings that carry pages. This keeps an image from reaching memory that is
// the engine's, such as the code that runs the remote calls.
func (l *layout) contains(r run) bool {
	i := sort.Search(len(l.mappings), func(i int) bool { return end(l.mappings[i]) > r.start })
	for at := r.start; at < r.end; i++ {
		if i == len(l.mappings) || l.mappings[i].Start > at || !hasPages(l.mappings[i]) {
			return false
		}
		at = end(l.mappings[i])
	}
	return true
}

// ranges are all addresses that the image uses.
func (l *layout) ranges() []tracer.Range {
	var out []tracer.Range
	add := func(start, end uint64) {
		if n := len(out); n > 0 && out[n-1].End == start {
			out[n-1].End = end
			return
		}
		out = append(out, tracer.Range{Start: start, End: end})
	}
	for _, m := range l.mappings {
		add(m.Start, end(m))
	}
	if l.space.VdsoLength > 0 {
		out = append(out, tracer.Range{Start: l.space.VdsoStart, End: l.space.VdsoStart + l.space.VdsoLength})
	}
	return out
}

// pageRuns decodes a record of pages and checks where they go.
func (l *layout) pageRuns(r *record.Record) ([]run, []byte, error) {
	if !l.mapped {
		return nil, nil, fmt.Errorf("%w: pages before the mappings", errLayout)
	}
	runs, data := []run{{r.Entity, r.Entity + uint64(len(r.Payload))}}, r.Payload
	if r.Kind == KindScattered {
		var err error
		if runs, data, err = decodeIndex(r.Payload); err != nil {
			return nil, nil, err
		}
	} else if !validRange(r.Entity, uint64(len(r.Payload))) {
		return nil, nil, fmt.Errorf("%w: %d bytes of pages at %#x", errLayout, len(r.Payload), r.Entity)
	}
	for _, x := range runs {
		if !l.contains(x) {
			return nil, nil, fmt.Errorf("%w: pages %#x-%#x are outside of its mappings", errLayout, x.start, x.end)
		}
	}
	return runs, data, nil
}
