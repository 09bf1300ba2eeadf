// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// Values that x/sys does not have.
const (
	madvGuardInstall = 102 // MADV_GUARD_INSTALL, Linux 6.13
	prSetVMA         = 0x53564d41
	prSetVMAAnonName = 0
	prSetMMMap       = 14 // PR_SET_MM_MAP
)

// finish gives the filled mappings their final form. Order: AIO rings, protections,
// advice, guards, locks, names, boundaries (the executable can be set only now
// that nothing of the frame's is mapped).
func (s *Subsystem) finish(t *target.Task, l *layout) error {
	for _, m := range l.mappings {
		if m.Backing == state.Backing_BACKING_AIO {
			if err := makeRing(t, m); err != nil {
				return fmt.Errorf("AIO ring at %#x: %w", m.Start, err)
			}
		}
	}
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	defer sc.Release(sc.Mark())
	var calls []tracer.Call
	var about []*state.Mapping
	add := func(m *state.Mapping, c tracer.Call) { calls, about = append(calls, c), append(about, m) }
	for _, m := range l.mappings {
		if fillProtection(m) != int(m.Protection) {
			add(m, tracer.Mprotect(m.Start, m.Length, int(m.Protection)))
		}
		for _, a := range m.Advice {
			if !beforeFill(a) {
				add(m, tracer.Syscall(unix.SYS_MADVISE, m.Start, m.Length, uint64(a)))
			}
		}
		for _, g := range m.Guard {
			add(m, tracer.Syscall(unix.SYS_MADVISE, g.Start, g.Length, madvGuardInstall))
		}
		if m.Locked > 0 {
			flag := uint64(0)
			if m.Locked == 2 {
				flag = 1 // MLOCK_ONFAULT
			}
			add(m, tracer.Syscall(unix.SYS_MLOCK2, m.Start, m.Length, flag))
		}
		if m.Name != "" && m.Backing == state.Backing_BACKING_ANONYMOUS {
			name, err := t.PutString(m.Name)
			if err != nil {
				return err
			}
			add(m, tracer.Prctl(prSetVMA, prSetVMAAnonName, m.Start, m.Length, name))
		}
	}
	if err := t.Traced.Run(t.Traced.Leader(), calls); err != nil {
		return err
	}
	for i := range calls {
		if err := calls[i].Errno(); err != nil {
			return fmt.Errorf("mapping %#x-%#x %s: system call %d: %w", about[i].Start, end(about[i]), about[i].Path, calls[i].Nr, err)
		}
	}
	if err := setPolicies(t, l.mappings); err != nil {
		return err
	}
	return s.setBoundaries(t, l.space)
}

// setBoundaries sets the fields of mm_struct and the executable.
func (s *Subsystem) setBoundaries(t *target.Task, sp *state.AddressSpace) error {
	sc, err := t.Traced.Scratch()
	if err != nil {
		return err
	}
	auxv, err := sc.Put(sp.Auxv)
	if err != nil {
		return err
	}
	plan := t.Plan()
	fd, err := s.openExecutable(t, plan, sp)
	if err != nil {
		return err
	}
	arg, err := sc.Put(mmMap(sp, auxv, fd))
	if err != nil {
		return err
	}
	plan.Call(tracer.Prctl(unix.PR_SET_MM, prSetMMMap, arg, mmMapSize, 0))
	plan.Close(fd)
	if sp.ThpDisabled {
		plan.Call(tracer.Prctl(unix.PR_SET_THP_DISABLE, 1))
	}
	if err := plan.Run(); err != nil {
		return fmt.Errorf("set the address space's boundaries and its executable %s: %w", sp.Exe, err)
	}
	return nil
}

// openExecutable gives the task a descriptor of what it executes.
func (s *Subsystem) openExecutable(t *target.Task, plan *target.Plan, sp *state.AddressSpace) (int, error) {
	if sp.ExeObject == 0 {
		plan.NarrowFiles()
		fd := plan.Open(openCall(plan.PutString(sp.Exe), false))
		plan.WidenFiles()
		return fd, nil
	}
	f, err := s.env.Frame.OpenObject(sp.ExeObject, false)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	fds, err := t.Accept([]*os.File{f})
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// mmMapSize is the size of struct prctl_mm_map.
const mmMapSize = 104

// mmMap encodes struct prctl_mm_map of include/uapi/linux/prctl.h.
func mmMap(sp *state.AddressSpace, auxv uint64, exe int) []byte {
	b := make([]byte, 0, mmMapSize)
	for _, v := range []uint64{
		sp.StartCode, sp.EndCode, sp.StartData, sp.EndData, sp.StartBrk, sp.Brk, sp.StartStack,
		sp.ArgStart, sp.ArgEnd, sp.EnvStart, sp.EnvEnd, auxv,
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(sp.Auxv)))
	return binary.LittleEndian.AppendUint32(b, uint32(exe))
}
