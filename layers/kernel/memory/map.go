// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// archMapVDSO64 is ARCH_MAP_VDSO_64 of arch/x86/include/uapi/asm/prctl.h.
const archMapVDSO64 = 0x2003

// openAtOnce bounds the files that are open in the task at the same time while
// it maps them.
const openAtOnce = 128

// mapAll gives the task the layout's mappings: in place of the frame's, still
// empty, or of those of an earlier version.
func (s *Subsystem) mapAll(t *target.Task, l *layout) error {
	if l.live != nil {
		return s.remapAll(t, l)
	}
	if err := t.Prepare(l.ranges()); err != nil {
		return err
	}
	if _, err := t.Traced.Scratch(); err != nil { // from now on calls run from there
		return err
	}
	keep := s.keep(t, l)
	if err := unmapBut(t, keep); err != nil {
		return fmt.Errorf("unmap the frame: %w", err)
	}
	if err := s.mapVDSO(t, l); err != nil {
		return err
	}
	fresh := slices.DeleteFunc(slices.Clone(l.mappings), func(m *state.Mapping) bool {
		_, kept := slices.BinarySearchFunc(keep, m.Start, func(k *state.Mapping, at uint64) int { return cmp.Compare(k.Start, at) })
		return kept
	})
	if err := s.mapFresh(t, l, fresh); err != nil {
		return err
	}
	return s.settleInherited(t, l, keep)
}

// mapFresh maps the mappings that the task has not, which are all of the layout
// or pieces of it.
func (s *Subsystem) mapFresh(t *target.Task, l *layout, mappings []*state.Mapping) error {
	l.version.Add(1)
	shared, err := s.openShared(t, mappings)
	if err != nil {
		return err
	}
	if err := checkHuge(mappings); err != nil {
		return err
	}
	for rest := mappings; len(rest) > 0; {
		n, err := mapSome(t, rest, shared)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	if err := shared.close(t); err != nil {
		return err
	}
	if err := s.attachSegments(t, mappings, l.mappings); err != nil {
		return err
	}
	if err := t.Run(adviseHuge(l.mappings)); err != nil {
		return fmt.Errorf("advise about huge pages: %w", err)
	}
	if err := setPolicies(t, l.mappings); err != nil {
		return err
	}
	if err := checkFiles(t, l); err != nil {
		return err
	}
	l.populated.forget()
	l.huge = hasHuge(l.mappings)
	l.mapped = true
	l.live, l.liveVDSO = l.mappings, run{l.space.VdsoStart, l.space.VdsoStart + l.space.VdsoLength}
	return nil
}

// mapSome maps as many of the mappings as one round of open files allows and
// returns how many.
func mapSome(t *target.Task, mappings []*state.Mapping, shared descriptors) (int, error) {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return 0, err
	}
	defer sc.Release(sc.Mark())
	plan := t.Plan()
	// Not with the frame's rights: a forged image could map what the container's
	// user cannot open.
	plan.NarrowFiles()
	open := map[string]int{}
	var order []string
	paths := map[uint64]string{}   // by their addresses in the task
	at := map[int]*state.Mapping{} // by index of its mmap
	done := 0
	for _, m := range mappings {
		if m.Backing == state.Backing_BACKING_SYSV || m.Backing == state.Backing_BACKING_AIO { // see attachSegments, makeRing
			done++
			continue
		}
		fd := -1
		if o, ok := objectOf(m); ok {
			fd = shared[o]
		}
		if m.Backing == state.Backing_BACKING_FILE {
			key := fmt.Sprintf("%v %s", m.MayWrite, m.Path)
			n, ok := open[key]
			if !ok {
				if len(open) == openAtOnce {
					break
				}
				path, err := t.PutString(m.Path)
				if err != nil {
					return 0, err
				}
				paths[path] = m.Path
				n = plan.Open(openCall(path, m.MayWrite))
				open[key] = n
				order = append(order, key)
			}
			fd = n
		}
		at[plan.Len()] = m
		plan.Quiet(mmapCall(m, fd))
		done++
	}
	for _, key := range order {
		plan.Close(open[key])
	}
	plan.WidenFiles()
	if err := plan.Run(); err != nil {
		return 0, describeOpen(err, paths)
	}
	for i, m := range at {
		if ret, err := plan.Result(i); err != nil {
			return 0, fmt.Errorf("map %#x-%#x %s: %w", m.Start, end(m), m.Path, explainHuge(m, err))
		} else if uint64(ret) != m.Start {
			return 0, fmt.Errorf("map %#x-%#x %s: the kernel put it at %#x", m.Start, end(m), m.Path, ret)
		}
	}
	return done, nil
}

// describeOpen names the file whose open failed, by the address of its path.
func describeOpen(err error, paths map[uint64]string) error {
	var ce *tracer.CallError
	if !errors.As(err, &ce) || ce.Call.Nr != unix.SYS_OPENAT {
		return err
	}
	return fmt.Errorf("open %q, which the image has mapped: %w (is the root file system the one the image was made with?)", paths[ce.Call.Args[1]], ce.Unwrap())
}

func openCall(path uint64, write bool) tracer.Call {
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	at := unix.AT_FDCWD
	return tracer.Syscall(unix.SYS_OPENAT, uint64(at), path, uint64(flags|unix.O_CLOEXEC|unix.O_NOCTTY), 0)
}

// mmapCall maps m with the protection that the fill needs.
func mmapCall(m *state.Mapping, fd int) tracer.Call {
	flags := unix.MAP_FIXED_NOREPLACE
	if m.NoReserve {
		flags |= unix.MAP_NORESERVE
	}
	switch {
	case m.Backing == state.Backing_BACKING_DROPPABLE:
		flags |= mapDroppable | unix.MAP_ANONYMOUS
	case m.Shared:
		flags |= unix.MAP_SHARED
	default:
		flags |= unix.MAP_PRIVATE
	}
	if m.Backing == state.Backing_BACKING_ANONYMOUS {
		flags |= unix.MAP_ANONYMOUS
	}
	if m.Backing == state.Backing_BACKING_HUGETLB && !m.Shared {
		flags |= unix.MAP_ANONYMOUS | hugeFlags(m.HugePageSize)
	}
	if m.GrowsDown {
		flags |= unix.MAP_GROWSDOWN
	}
	return tracer.Mmap(m.Start, m.Length, fillProtection(m), flags, fd, m.Offset)
}

// mapDroppable is MAP_DROPPABLE of include/uapi/linux/mman.h (Linux 6.11).
const mapDroppable = 0x08

// fillProtection is the protection until StageBuild: writable where pages may
// come. That of shmat(2) is its own; terabytes that were only reserved must not
// be counted against overcommit, see mprotect(2).
func fillProtection(m *state.Mapping) int {
	p := int(m.Protection)
	switch {
	case m.Unaccounted:
		return p
	case m.Backing == state.Backing_BACKING_SYSV:
		if p = unix.PROT_READ; m.MayWrite {
			p |= unix.PROT_WRITE
		}
	case isEarly(m):
		// Whatever it is now, and in the next version of the layout.
		return unix.PROT_READ | unix.PROT_WRITE
	}
	if hasPages(m) {
		p |= unix.PROT_READ | unix.PROT_WRITE
	}
	return p
}

// checkFiles compares the mapped files with those of the image: code that was
// compiled, linked or cached against another file would crash or, worse, not.
func checkFiles(t *target.Task, l *layout) error {
	for _, m := range l.mappings {
		if m.Backing != state.Backing_BACKING_FILE || m.Shared {
			continue
		}
		var st unix.Stat_t
		path := t.Proc.Path(fmt.Sprintf("map_files/%x-%x", m.Start, end(m)))
		if err := unix.Stat(path, &st); err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue // joined with its neighbour, which is checked
			}
			return fmt.Errorf("look at %s: %w", m.Path, err)
		}
		huge, err := target.OnHugetlbfs(path, &st)
		if err != nil {
			return err
		}
		if huge != m.HugePageSize {
			// Its private pages would be allocated by the engine, past the container's limit.
			return fmt.Errorf("%s has pages of %d bytes here and had %d when the image was made (0: small ones): restore with the same file systems", m.Path, huge, m.HugePageSize)
		}
		if uint64(st.Size) != m.FileSize {
			return fmt.Errorf("%s has %d bytes here and had %d when the image was made: restore with the same root file system", m.Path, st.Size, m.FileSize)
		}
	}
	return nil
}

// adviseHuge gives the advice that decides in what pages the fill ends up: it
// comes before it, all other advice after.
func adviseHuge(mappings []*state.Mapping) (calls []tracer.Call) {
	for _, m := range mappings {
		for _, a := range m.Advice {
			if beforeFill(a) {
				calls = append(calls, tracer.Syscall(unix.SYS_MADVISE, m.Start, m.Length, uint64(a)))
			}
		}
	}
	return calls
}

func beforeFill(advice uint32) bool {
	return advice == unix.MADV_HUGEPAGE || advice == unix.MADV_NOHUGEPAGE
}
