// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// describe reads everything of a stopped process's address space but its
// contents.
func (s *Subsystem) describe(p *target.Process, smaps []procfs.SmapsMapping) (*state.AddressSpace, []*state.Mapping, error) {
	space, err := s.boundaries(p)
	if err != nil {
		return nil, nil, err
	}
	pm, err := openPagemap(p.Pid)
	if err != nil {
		return nil, nil, err
	}
	defer pm.Close()
	mappings := make([]*state.Mapping, 0, len(smaps))
	for i := range smaps {
		kind, m, err := classify(&smaps[i])
		if err != nil {
			return nil, nil, err
		}
		switch kind {
		case partFixed:
			continue
		case partVDSO:
			if err := addVDSO(space, &smaps[i], p.Traced.ReadForce); err != nil {
				return nil, nil, err
			}
			continue
		}
		if err := s.details(p, pm, &smaps[i], m); err != nil {
			return nil, nil, err
		}
		mappings = append(mappings, m)
	}
	space.Mappings = uint32(len(mappings))
	s.vdsoOnce(space)
	return space, mappings, nil
}

// aboutBoundaries is what the leader is asked.
var aboutBoundaries = &target.Question{
	Process: true,
	Calls: func(uint64) []tracer.Call {
		return []tracer.Call{tracer.Syscall(unix.SYS_BRK, 0), tracer.Prctl(unix.PR_GET_THP_DISABLE)}
	},
}

// boundaries fills what prctl(PR_SET_MM_MAP) sets again.
func (s *Subsystem) boundaries(p *target.Process) (*state.AddressSpace, error) {
	st, err := p.Proc.Stat()
	if err != nil {
		return nil, err
	}
	aux, err := p.Proc.Auxv()
	if err != nil {
		return nil, err
	}
	exe, object, err := s.executable(p)
	if err != nil {
		return nil, err
	}
	a, err := p.AskLeader(aboutBoundaries)
	if err != nil {
		return nil, err
	}
	calls := a.Calls
	return &state.AddressSpace{
		StartCode: st.StartCode, EndCode: st.EndCode, StartData: st.StartData, EndData: st.EndData,
		StartBrk: st.StartBrk, Brk: uint64(calls[0].Ret), StartStack: st.StartStack,
		ArgStart: st.ArgStart, ArgEnd: st.ArgEnd, EnvStart: st.EnvStart, EnvEnd: st.EnvEnd,
		Auxv: encodeAuxv(aux), Exe: exe, ExeObject: object, ThpDisabled: calls[1].Ret == 1,
	}, nil
}

// executable is the file that /proc/PID/exe leads to: its path, and the object
// that it is if the path does not lead there any more.
func (s *Subsystem) executable(p *target.Process) (path string, object uint64, err error) {
	f, err := executableOf(p.Proc)
	if err != nil {
		return "", 0, err
	}
	l, err := s.locate(p.Proc, f)
	if err != nil {
		return "", 0, err
	}
	if l.object == nil {
		return l.path, 0, nil
	}
	object, err = s.known(l)
	return f.path, object, err
}

// encodeAuxv is the kernel's own form: pairs of words, ended by AT_NULL.
func encodeAuxv(aux []procfs.AuxEntry) []byte {
	var b []byte
	for _, a := range aux {
		b = binary.LittleEndian.AppendUint64(b, a.Key)
		b = binary.LittleEndian.AppendUint64(b, a.Value)
	}
	if n := len(aux); n == 0 || aux[n-1].Key != 0 {
		b = append(b, make([]byte, 16)...)
	}
	return b
}

// addVDSO notes where the kernel's pages are. Their parts follow each other:
// [vvar], [vvar_vclock], [vdso] (arch/x86/entry/vdso/vma.c, map_vdso).
func addVDSO(space *state.AddressSpace, m *procfs.SmapsMapping, read func(uint64, []byte) error) error {
	if space.VdsoLength == 0 {
		space.VdsoStart = m.Start
	}
	if m.Start != space.VdsoStart+space.VdsoLength {
		return fmt.Errorf("the parts of the vDSO are not in one piece: %s at %#x, expected %#x", m.Path, m.Start, space.VdsoStart+space.VdsoLength)
	}
	space.VdsoLength += m.Len()
	if m.Kind != procfs.MapVDSO {
		return nil
	}
	code := make([]byte, m.Len())
	if err := read(m.Start, code); err != nil {
		return fmt.Errorf("read the vDSO: %w", err)
	}
	sum := sha256.Sum256(code)
	space.VdsoSha256, space.VdsoCode = sum[:], code
	return nil
}

// details fills what smaps does not show.
func (s *Subsystem) details(p *target.Process, pm *pagemap, shown *procfs.SmapsMapping, m *state.Mapping) error {
	var err error
	switch m.Backing {
	case state.Backing_BACKING_FILE:
		err = s.place(p.Proc, shown, m)
	case state.Backing_BACKING_SYSV:
		err = s.mayAttach(shown)
	case state.Backing_BACKING_AIO:
		err = describeRing(p, m)
	}
	if err != nil {
		return err
	}
	if !shown.Flags.Has(procfs.VMGuard) {
		return nil
	}
	return pm.scan(shown.Start, shown.End, selection{all: pageIsGuard}, func(start, end uint64) {
		m.Guard = append(m.Guard, &state.Range{Start: start, Length: end - start})
	})
}
