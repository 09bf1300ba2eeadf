// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// A program has pointers into the vDSO that it was started with. Where the
// running kernel has the same one, it is mapped in that place. Otherwise the
// image's code stays there, with its functions replaced by jumps to those of the
// running kernel's, which lies elsewhere. Its data pages are zero: a thread that
// was stopped in the middle of a function finds a clock there that it cannot
// use, and makes the system call.

// kernelVDSO is the running kernel's in a task.
type kernelVDSO struct {
	whole run // with its data pages
	code  []byte
	start uint64 // of the code
}

// mapVDSO gives the task the image's vDSO.
func (s *Subsystem) mapVDSO(t *target.Task, l *layout) error {
	sp := l.space
	l.kernelVDSO = run{}
	if sp.VdsoLength == 0 {
		return nil
	}
	if len(sp.VdsoCode) > 0 {
		if sum := sha256.Sum256(sp.VdsoCode); !bytes.Equal(sum[:], sp.VdsoSha256) {
			return fmt.Errorf("%w: the vDSO's code is not that of its digest", errLayout)
		}
		s.mu.Lock()
		s.vdsos[string(sp.VdsoSha256)] = sp.VdsoCode
		s.mu.Unlock()
	}
	k, err := mapKernelVDSO(t, sp.VdsoStart)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(k.code)
	if bytes.Equal(sum[:], sp.VdsoSha256) && k.whole == (run{sp.VdsoStart, sp.VdsoStart + sp.VdsoLength}) {
		return nil
	}
	s.mu.Lock()
	old := s.vdsos[string(sp.VdsoSha256)]
	s.mu.Unlock()
	if old == nil {
		return errors.New("this kernel's vDSO is not the one that the image was made with, and the image does not have that one's code: restore it on a host with the same kernel")
	}
	if err := t.Run([]tracer.Call{tracer.Munmap(k.whole.start, k.whole.bytes())}); err != nil {
		return fmt.Errorf("move the vDSO: %w", err)
	}
	return mapForeignVDSO(t, l, old, k.whole.bytes())
}

// mapKernelVDSO has the kernel map its vDSO at or near an address.
func mapKernelVDSO(t *target.Task, at uint64) (*kernelVDSO, error) {
	if err := t.Run([]tracer.Call{tracer.Syscall(unix.SYS_ARCH_PRCTL, archMapVDSO64, at)}); err != nil {
		return nil, fmt.Errorf("map the vDSO at %#x: %w", at, err)
	}
	maps, err := t.Proc.Maps()
	if err != nil {
		return nil, err
	}
	k := &kernelVDSO{}
	for _, m := range maps {
		switch m.Kind {
		case procfs.MapVVar, procfs.MapVVarVClock, procfs.MapVDSO:
		default:
			continue
		}
		if k.whole.start == 0 {
			k.whole.start = m.Start
		}
		k.whole.end = m.End
		if m.Kind == procfs.MapVDSO {
			k.start, k.code = m.Start, make([]byte, m.Len())
		}
	}
	if k.code == nil {
		return nil, errors.New("the kernel has mapped no vDSO")
	}
	if err := t.Traced.ReadForce(k.start, k.code); err != nil {
		return nil, fmt.Errorf("read the vDSO: %w", err)
	}
	return k, nil
}

// mapForeignVDSO maps the code that the program knows, and behind it the running
// kernel's, which has size bytes.
func mapForeignVDSO(t *target.Task, l *layout, old []byte, size uint64) error {
	sp := l.space
	avoid := l.ranges()
	for _, r := range t.Traced.ScratchRanges() {
		avoid = append(avoid, tracer.Range{Start: r.Start, End: r.End + scratchGrowth})
	}
	at, ok := roomFor(avoid, l.mappings, size)
	if !ok {
		return fmt.Errorf("no room for this kernel's vDSO of %d bytes", size)
	}
	k, err := mapKernelVDSO(t, at)
	if err != nil {
		return err
	}
	if k.whole.start != at {
		return fmt.Errorf("the kernel put its vDSO at %#x in place of %#x", k.whole.start, at)
	}
	code, err := redirect(old, k)
	if err != nil {
		return fmt.Errorf("redirect the vDSO of the image to this kernel's: %w", err)
	}
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED_NOREPLACE
	data := sp.VdsoLength - uint64(len(code))
	calls := []tracer.Call{tracer.Mmap(sp.VdsoStart+data, uint64(len(code)), unix.PROT_READ|unix.PROT_EXEC, flags, -1, 0)}
	if data > 0 {
		calls = append(calls, tracer.Mmap(sp.VdsoStart, data, unix.PROT_READ, flags, -1, 0))
	}
	if err := t.Run(calls); err != nil {
		return fmt.Errorf("map the vDSO of the image: %w", err)
	}
	if err := t.Traced.WriteForce(sp.VdsoStart+data, code); err != nil {
		return fmt.Errorf("write the vDSO of the image: %w", err)
	}
	l.kernelVDSO = k.whole
	return nil
}

const (
	// scratchGrowth is more than what the engine's scratch memory may grow by.
	scratchGrowth = 1 << 30
	// roomMargin is left free around the kernel's vDSO: what is mapped below may
	// grow up to it.
	roomMargin = 1 << 20
)

// roomFor finds a place that is far from what may grow: the end of a hole between
// the image's mappings, but never below one that grows down.
func roomFor(avoid []tracer.Range, mappings []*state.Mapping, size uint64) (uint64, bool) {
	avoid = slices.Clone(avoid)
	slices.SortFunc(avoid, func(a, b tracer.Range) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	growing := map[uint64]bool{}
	for _, m := range mappings {
		growing[m.Start] = m.GrowsDown
	}
	top := uint64(userEnd)
	for _, r := range slices.Backward(avoid) {
		if r.End <= top && top-r.End >= size+2*roomMargin && !growing[top] {
			return top - roomMargin - size, true
		}
		top = min(top, r.Start)
	}
	return 0, false
}
