// SPDX-License-Identifier: Apache-2.0

package task

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// KindSettings is a state.Settings; its entity is the id of the first thread in it.
const KindSettings = 4

// settingsPerRecord keeps records small where affinities and nodes are long.
const settingsPerRecord = 256

// Commands of membarrier(2), include/uapi/linux/membarrier.h.
const (
	membarrierRegistrations = 1 << 9
	// membarrierRegisters are all commands that register; each can be given
	// again without harm.
	membarrierRegisters = 1<<2 | 1<<4 | 1<<6 | 1<<8
	// membarrierPrivate are those that concern nobody but the process.
	membarrierPrivate = 1<<4 | 1<<6 | 1<<8
)

// Values of include/uapi/linux/prctl.h that x/sys lacks.
const (
	prSetMDWE, prGetMDWE               = 65, 66
	prSetMemoryMerge, prGetMemoryMerge = 67, 68
	mceDefault                         = 2
	// specControllable: the thread may choose; the others say what it chose.
	specControllable, specChosen = 1 << 0, 1<<2 | 1<<3 | 1<<4
	// Of arch/x86/include/uapi/asm/prctl.h, and the component of XCR0 that has to be
	// asked for: the tiles of AMX.
	archGetXcompPerm, archReqXcompPerm = 0x1022, 0x1023
	xstateTiles                        = 18
	// speculations is how many features there are to ask about.
	speculations = 3
)

// cpuBytes is the size of an affinity, for as many CPUs as Linux can have
// (NR_CPUS of arch/x86/Kconfig: 8192); nodeBytes likewise (MAX_NUMNODES: 1024).
const (
	cpuBytes  = 8192 / 8
	nodeBytes = 1024 / 8
)

// exportSettings pushes what few programs change.
func exportSettings(ctx context.Context, p *target.Process, out record.Sink) error {
	process, err := processSettings(p)
	if err != nil {
		return err
	}
	threads, err := threadSettings(p)
	if err != nil {
		return err
	}
	for len(threads) > 0 {
		n := min(len(threads), settingsPerRecord)
		b, err := proto.Marshal(&state.Settings{Process: process, Thread: threads[:n]})
		if err != nil {
			return err
		}
		h := record.Header{Subsystem: Name, Process: p.ID, Kind: KindSettings, Entity: uint64(threads[0].Tid)}
		if err := out.Push(ctx, &record.Record{Header: h, Payload: b}); err != nil {
			return err
		}
		process, threads = nil, threads[n:]
	}
	return nil
}

// aboutProcessSettings is what the leader is asked.
var aboutProcessSettings = &target.Question{
	Process: true, Size: 8,
	Calls: func(at uint64) []tracer.Call {
		return []tracer.Call{
			tracer.Prctl(prGetMemoryMerge, 0, 0, 0, 0),
			tracer.Prctl(prGetMDWE, 0, 0, 0, 0),
			tracer.Syscall(unix.SYS_MEMBARRIER, membarrierRegistrations, 0, 0),
			tracer.Syscall(unix.SYS_ARCH_PRCTL, archGetXcompPerm, at),
		}
	},
}

// processSettings asks the leader. What this kernel does not know cannot have
// been set, except for membarrier's, which older ones do not tell.
func processSettings(p *target.Process) (*state.ProcessSettings, error) {
	asked, err := p.Ask(aboutProcessSettings)
	if err != nil {
		return nil, err
	}
	calls := asked[0].Calls
	m := &state.ProcessSettings{Membarrier: membarrierPrivate}
	if !calls[0].Failed() {
		m.MemoryMerge = calls[0].Ret == 1
	}
	if !calls[1].Failed() {
		m.DenyWriteExecute = uint32(calls[1].Ret)
	}
	if err := calls[2].Errno(); err == nil {
		m.Membarrier = uint32(calls[2].Ret) & membarrierRegisters
	} else if !errors.Is(err, unix.EINVAL) {
		m.Membarrier = 0 // a kernel without membarrier(2)
	}
	if !calls[3].Failed() {
		m.XstatePermission = binary.LittleEndian.Uint64(asked[0].Memory)
	}
	return m, nil
}

// askedBytes is the size of a thread's block of answers: memory policy, its
// nodes, and the mode of the time stamp counter.
const (
	askedBytes = 8 + nodeBytes + 8
	askTS      = 8 + nodeBytes
)

// aboutSettings is what a thread is asked.
var aboutSettings = &target.Question{Size: askedBytes, Calls: questions}

// threadSettings asks every thread for what it alone can tell, and the kernel
// for the rest.
func threadSettings(p *target.Process) ([]*state.ThreadSettings, error) {
	asked, err := p.Ask(aboutSettings)
	if err != nil {
		return nil, err
	}
	out := make([]*state.ThreadSettings, len(asked))
	for i, a := range asked {
		th := a.Thread
		if out[i], err = answers(a.Calls, a.Memory); err != nil {
			return nil, fmt.Errorf("thread %d: %w", th.Tid, err)
		}
		out[i].Tid = int32(th.NSTid)
		if err := fromOutside(th.Tid, out[i]); err != nil {
			return nil, fmt.Errorf("thread %d: %w", th.Tid, err)
		}
	}
	return out, nil
}

func questions(at uint64) []tracer.Call {
	calls := []tracer.Call{
		tracer.Prctl(unix.PR_MCE_KILL_GET, 0, 0, 0, 0),
		// One more bit than there are: get_mempolicy(2) counts from 1.
		tracer.Syscall(unix.SYS_GET_MEMPOLICY, at, at+8, nodeBytes*8, 0, 0),
	}
	for n := range uint64(speculations) {
		calls = append(calls, tracer.Prctl(unix.PR_GET_SPECULATION_CTRL, n, 0, 0, 0))
	}
	return append(calls, tracer.Prctl(unix.PR_GET_TSC, at+askTS), tracer.Prctl(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0))
}

// answers reads what the calls of questions found.
func answers(calls []tracer.Call, b []byte) (*state.ThreadSettings, error) {
	m := &state.ThreadSettings{MachineCheck: mceDefault}
	if !calls[0].Failed() {
		m.MachineCheck = uint32(calls[0].Ret)
	}
	switch err := calls[1].Errno(); {
	case err == nil:
		m.MemoryPolicy = binary.LittleEndian.Uint32(b)
		m.MemoryNodes = trim(b[8:askTS])
	case errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("the memory policy has more than %d nodes: %w", nodeBytes*8, err)
	}
	for i := range speculations {
		chosen := uint32(0)
		if r := calls[2+i].Ret; r >= 0 && r&specControllable != 0 {
			chosen = uint32(r) & specChosen
		}
		m.Speculation = append(m.Speculation, chosen)
	}
	if !calls[2+speculations].Failed() {
		m.TimeStampCounter = binary.LittleEndian.Uint32(b[askTS:])
	}
	// Who may not ask (CAP_SYS_RESOURCE) could not have set it either.
	m.IoFlusher = calls[3+speculations].Ret == 1
	return m, nil
}

// fromOutside adds what the engine may ask about any thread.
func fromOutside(tid int, m *state.ThreadSettings) error {
	cpus, err := affinity(tid)
	if err != nil {
		return err
	}
	m.Affinity = cpus
	m.IoPriority, err = ioPriority(tid)
	return err
}

// affinity of a thread, as the bytes of its mask without the zeroes at its end.
func affinity(tid int) ([]byte, error) {
	var b [cpuBytes]byte
	n, _, e := unix.Syscall(unix.SYS_SCHED_GETAFFINITY, uintptr(tid), uintptr(len(b)), uintptr(unsafe.Pointer(&b[0])))
	if e != 0 {
		return nil, fmt.Errorf("sched_getaffinity: %w", e)
	}
	return bytes.Clone(trim(b[:n])), nil
}

// ioprioWhoProcess is IOPRIO_WHO_PROCESS of include/uapi/linux/ioprio.h.
const ioprioWhoProcess = 1

func ioPriority(tid int) (uint32, error) {
	n, _, e := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, uintptr(tid), 0)
	if e != 0 && e != unix.ENOSYS {
		return 0, fmt.Errorf("ioprio_get: %w", e)
	}
	if e != 0 {
		return 0, nil
	}
	return uint32(n), nil
}

// trim drops the zeros behind the last bit of a set.
func trim(b []byte) []byte {
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return b[:n:n]
}
