// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// Memory of huge pages: private (MAP_HUGETLB), shared without a file, which is a
// sharedObject, memfds of huge pages, and System V shared memory of them. It is not copied ahead and not left
// behind: its pages come at the switch.

// madvPopulateWrite is MADV_POPULATE_WRITE, Linux 5.14.
const madvPopulateWrite = 23

// hugeFlags ask mmap(2) for huge pages of a size.
func hugeFlags(size uint64) int { return unix.MAP_HUGETLB | target.HugeFlag(size) }

// refuseHuge names what of huge pages is not carried. Of files on a hugetlbfs some are,
// see locate.
func refuseHuge(at string, m *procfs.SmapsMapping) *refusal {
	switch m.Kind {
	case procfs.MapHugeAnon, procfs.MapMemfd, procfs.MapSysV, procfs.MapFile:
		return nil
	}
	return &refusal{at, "huge pages of kind " + m.Kind.String() + " are not carried by this version", ""}
}

// validHuge says what is wrong with a mapping's huge pages, as far as that can be told
// on any kernel.
func validHuge(m *state.Mapping) string {
	size := m.HugePageSize
	switch {
	case size == 0:
		return ""
	case m.Backing != state.Backing_BACKING_HUGETLB && m.Backing != state.Backing_BACKING_OBJECT && m.Backing != state.Backing_BACKING_SYSV &&
		m.Backing != state.Backing_BACKING_FILE:
		return "huge pages of backing " + m.Backing.String()
	case !target.ValidHugeSize(size) || (m.Start|m.Length|m.Offset)&(size-1) != 0:
		return fmt.Sprintf("%#x bytes from offset %#x are no huge pages of %#x bytes", m.Length, m.Offset, size)
	case len(m.Guard) > 0:
		return "guards in huge pages"
	}
	return ""
}

// checkHuge refuses sizes of huge pages that this kernel lacks.
func checkHuge(mappings []*state.Mapping) error {
	for _, m := range mappings {
		if m.HugePageSize == 0 {
			continue
		}
		if err := target.CheckHugeSize(m.HugePageSize); err != nil {
			return fmt.Errorf("mapping %#x-%#x: %w", m.Start, end(m), err)
		}
	}
	return nil
}

// explainHuge says what was wanted where the kernel only says that memory is short.
func explainHuge(m *state.Mapping, err error) error {
	if m.HugePageSize == 0 || !errors.Is(err, unix.ENOMEM) {
		return err
	}
	return fmt.Errorf("%s: %w", target.WantedHuge(m.HugePageSize, m.Length/m.HugePageSize), err)
}

// hugeSet are huge pages, by their addresses.
type hugeSet struct {
	mu   sync.Mutex
	have pageSet
}

// populate has the task allocate the huge pages in which private pages are to be
// written: they are charged to the cgroup of who allocates them, which else would be
// the engine's.
func (l *layout) populate(t *target.Task, runs []run) error {
	if !l.huge {
		return nil
	}
	l.populated.mu.Lock()
	defer l.populated.mu.Unlock()
	for _, r := range hugePagesOf(l.mappings, runs).subtract(l.populated.have) {
		call := []tracer.Call{tracer.Syscall(unix.SYS_MADVISE, r.start, r.bytes(), madvPopulateWrite)}
		if err := t.Run(call); err != nil {
			return fmt.Errorf("allocate huge pages at %#x-%#x: %w (is the pool, or the container's limit of the hugetlb cgroup, exhausted?)", r.start, r.end, err)
		}
		l.populated.have = l.populated.have.union(pageSet{r})
	}
	return nil
}

func hasHuge(mappings []*state.Mapping) bool {
	return slices.ContainsFunc(mappings, func(m *state.Mapping) bool { return m.HugePageSize > 0 })
}

// forget empties the set.
func (h *hugeSet) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.have = nil
}

// hugePagesOf are the private huge pages of mappings that runs touch.
func hugePagesOf(mappings []*state.Mapping, runs []run) (s pageSet) {
	for _, r := range runs {
		first := sort.Search(len(mappings), func(i int) bool { return end(mappings[i]) > r.start })
		for i := first; i < len(mappings) && mappings[i].Start < r.end; i++ {
			m := mappings[i]
			if m.HugePageSize == 0 || m.Shared {
				continue
			}
			mask := m.HugePageSize - 1
			start, stop := max(r.start, m.Start)&^mask, (min(r.end, end(m))+mask)&^mask
			s = s.union(pageSet{{start, stop}})
		}
	}
	return s
}
