// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/state"
)

// part says what becomes of a mapping.
type part int

const (
	// partCarried: a state.Mapping describes it.
	partCarried part = iota
	// partVDSO: the kernel's own; the new kernel's takes its place.
	partVDSO
	// partFixed: every process has it and nothing can change it ([vsyscall]).
	partFixed
)

// refusal is a mapping that cannot be carried: what it is, why, and a remedy.
type refusal struct{ what, why, remedy string }

func (r *refusal) Error() string { return r.what + ": " + r.why }

// madvise(2) values by the flag that shows them, in an order in which they may
// be given again.
var advices = []struct {
	flag   procfs.VMFlags
	advice uint32
}{
	{procfs.VMSeqRead, unix.MADV_SEQUENTIAL},
	{procfs.VMRandRead, unix.MADV_RANDOM},
	{procfs.VMDontFork, unix.MADV_DONTFORK},
	{procfs.VMDontDump, unix.MADV_DONTDUMP},
	{procfs.VMHugePage, unix.MADV_HUGEPAGE},
	{procfs.VMNoHugePage, unix.MADV_NOHUGEPAGE},
	{procfs.VMMergeable, unix.MADV_MERGEABLE},
	{procfs.VMWipeOnFork, unix.MADV_WIPEONFORK},
}

// classify turns one entry of smaps into what a restore needs. It looks at
// nothing but the entry, so the pre-flight and the export say the same.
func classify(m *procfs.SmapsMapping) (part, *state.Mapping, error) {
	switch m.Kind {
	case procfs.MapVDSO, procfs.MapVVar, procfs.MapVVarVClock:
		return partVDSO, nil, nil
	case procfs.MapVSyscall:
		return partFixed, nil, nil
	}
	if r := refuse(m); r != nil {
		return 0, nil, r
	}
	out := &state.Mapping{
		Start: m.Start, Length: m.Len(), Protection: uint32(m.Prot), Shared: m.Shared,
		GrowsDown: m.Flags.Has(procfs.VMGrowsDown), NoReserve: m.Flags.Has(procfs.VMNoReserve),
		Name: m.Name(), MayWrite: m.Shared && m.Flags.Has(procfs.VMMayWrite),
	}
	switch {
	case m.Flags.Has(procfs.VMDroppable):
		out.Backing = state.Backing_BACKING_DROPPABLE
	case m.Kind == procfs.MapFile, m.Kind == procfs.MapMemfd:
		// Where the file is found is looked up: see place.
		out.Backing, out.Path, out.Offset, out.Name = state.Backing_BACKING_FILE, m.Path, m.Offset, ""
	case m.Kind == procfs.MapSharedAnon:
		// The inode becomes an id when the mapping is exported.
		out.Backing, out.Object, out.Offset = state.Backing_BACKING_SHARED_ANONYMOUS, m.Inode, m.Offset
	case m.Kind == procfs.MapHugeAnon:
		// The file of private ones is nobody else's, and makes no difference.
		if out.Backing = state.Backing_BACKING_HUGETLB; m.Shared {
			out.Object, out.Offset = m.Inode, m.Offset
		}
	case m.Kind == procfs.MapAIO:
		out.Backing = state.Backing_BACKING_AIO // see ring
	case m.Kind == procfs.MapSysV:
		out.Backing, out.Object, out.Offset = state.Backing_BACKING_SYSV, m.Inode, m.Offset
	default:
		out.Backing = state.Backing_BACKING_ANONYMOUS
		out.Unaccounted = !m.Shared && m.Flags&(procfs.VMAccount|procfs.VMNoReserve|procfs.VMWrite) == 0
	}
	if m.Flags.Has(procfs.VMHugeTLB) {
		out.HugePageSize = m.KernelPageSize
	}
	for _, a := range advices {
		if m.Flags.Has(a.flag) && out.Backing != state.Backing_BACKING_DROPPABLE {
			out.Advice = append(out.Advice, a.advice)
		}
	}
	switch {
	case m.Flags.Has(procfs.VMLockOnFault):
		out.Locked = 2
	case m.Flags.Has(procfs.VMLocked):
		out.Locked = 1
	}
	out.Sealed = m.Flags.Has(procfs.VMSealed)
	return partCarried, out, nil
}

// refuse names what this version does not carry. Whatever is not known here is
// refused: an unknown mapping restored as plain memory would lose state.
func refuse(m *procfs.SmapsMapping) *refusal {
	at := fmt.Sprintf("mapping %#x-%#x", m.Start, m.End)
	if m.Path != "" {
		at += " of " + m.Path
	}
	if len(m.UnknownFlags) > 0 {
		return &refusal{at, "has flags that mig does not know: " + strings.Join(m.UnknownFlags, " "), "use a mig that knows this kernel"}
	}
	for _, f := range []struct {
		flag procfs.VMFlags
		why  string
	}{
		{procfs.VMUffdMissing | procfs.VMUffdWP | procfs.VMUffdMinor, "is served by the application's own userfaultfd"},
		{procfs.VMShadowStack, "is a shadow stack"},
		{procfs.VMPFNMap | procfs.VMIO | procfs.VMMixed, "maps a device"},
		{procfs.VMSync, "maps persistent memory (MAP_SYNC)"},
	} {
		if m.Flags&f.flag != 0 {
			return &refusal{at, f.why, ""}
		}
	}
	if m.ProtectionKey != 0 {
		return &refusal{at, fmt.Sprintf("has protection key %d (pkey_mprotect(2)), which is not carried by this version", m.ProtectionKey), ""}
	}
	if m.Flags.Has(procfs.VMHugeTLB) {
		return refuseHuge(at, m)
	}
	switch m.Kind {
	case procfs.MapAnon, procfs.MapHeap, procfs.MapStack, procfs.MapAnonNamed:
		return nil
	case procfs.MapFile, procfs.MapMemfd:
		return nil
	case procfs.MapSharedAnon, procfs.MapSysV, procfs.MapAIO:
		if !m.Shared {
			return &refusal{at, "is a private mapping of shared memory", ""}
		}
		return nil
	case procfs.MapAnonShmem:
		return &refusal{at, "shared memory with a name of prctl(PR_SET_VMA_ANON_NAME) is not carried by this version", ""}
	case procfs.MapUprobes:
		return &refusal{at, "a uprobe is set in the process", "remove the probe"}
	}
	return &refusal{at, "memory of kind " + m.Kind.String() + " is not carried by this version", ""}
}
