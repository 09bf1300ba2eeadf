// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

const (
	sysMseal   = 462 // mseal(2), Linux 6.10
	mclOnFault = 4   // MCL_ONFAULT of mlockall(2)
)

// lockedFuture is lockFuture of a stopped process whose mappings may have been
// read before there was scratch memory. Without anything locked there is no need
// to look.
func lockedFuture(p *target.Process, smaps []procfs.SmapsMapping) (uint32, error) {
	st, err := p.Proc.Fresh().Status() // the scratch memory counts
	if err != nil || st.Vm.Locked == 0 {
		return 0, err
	}
	scratch := p.Traced.ScratchRanges()
	if !slices.ContainsFunc(smaps, func(m procfs.SmapsMapping) bool { return len(scratch) > 0 && m.Start == scratch[0].Start }) {
		if smaps, err = p.Proc.Smaps(); err != nil {
			return 0, err
		}
	}
	return lockFuture(smaps, scratch), nil
}

// lockFuture tells whether mlockall(MCL_FUTURE) is in force, which the kernel
// shows nowhere but on mappings that were made since: those of the engine's own
// scratch memory.
func lockFuture(smaps []procfs.SmapsMapping, scratch []tracer.Range) uint32 {
	for i := range smaps {
		m := &smaps[i]
		for _, r := range scratch {
			if m.Start < r.Start || m.End > r.End || !m.Flags.Has(procfs.VMLocked) {
				continue
			}
			if m.Flags.Has(procfs.VMLockOnFault) {
				return unix.MCL_FUTURE | mclOnFault
			}
			return unix.MCL_FUTURE
		}
	}
	return 0
}

// seal does what forbids everything that an import does: mseal(2), and the
// locking of new mappings.
func seal(t *target.Task, l *layout) error {
	var calls []tracer.Call
	for _, m := range l.mappings {
		if m.Sealed {
			calls = append(calls, tracer.Syscall(sysMseal, m.Start, m.Length, 0))
		}
	}
	if len(calls) > 0 {
		if err := t.Run(calls); err != nil {
			return fmt.Errorf("seal mappings (mseal(2) needs Linux 6.10): %w", err)
		}
	}
	if l.space.MlockFuture == 0 {
		return nil
	}
	if err := t.Run([]tracer.Call{tracer.Syscall(unix.SYS_MLOCKALL, uint64(l.space.MlockFuture))}); err != nil {
		return fmt.Errorf("lock what will be mapped (mlockall(2)): %w", err)
	}
	return nil
}
