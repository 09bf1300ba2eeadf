// SPDX-License-Identifier: Apache-2.0

package task

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// addSettings keeps a record of KindSettings.
func (k *saved) addSettings(payload []byte) error {
	var m state.Settings
	if err := proto.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	if m.Process != nil {
		if m.Process.Membarrier&^membarrierRegisters != 0 || k.settings != nil {
			return fmt.Errorf("%w: settings of the process: %v", errImage, m.Process)
		}
		k.settings = m.Process
	}
	for _, th := range m.Thread {
		switch {
		case th.Tid <= 0 || th.Tid > maxThreads || k.threadSettings[th.Tid] != nil:
			return fmt.Errorf("%w: settings of thread %d", errImage, th.Tid)
		case len(th.Affinity) > cpuBytes || len(th.MemoryNodes) > nodeBytes || len(th.Speculation) > speculations || th.MachineCheck > mceDefault || th.TimeStampCounter > unix.PR_TSC_SIGSEGV:
			return fmt.Errorf("%w: settings of thread %d: %v", errImage, th.Tid, th)
		}
		if k.threadSettings == nil {
			k.threadSettings = map[int32]*state.ThreadSettings{}
		}
		k.threadSettings[th.Tid] = th
	}
	return nil
}

// setProcess makes the process's settings while it has one thread: with more,
// membarrier(2) waits for every CPU.
func setProcess(t *target.Task, m *state.ProcessSettings) error {
	if m == nil {
		return nil
	}
	var calls []tracer.Call
	for bit := uint64(1); bit <= membarrierRegisters; bit <<= 1 {
		if uint64(m.Membarrier)&bit != 0 {
			calls = append(calls, tracer.Syscall(unix.SYS_MEMBARRIER, bit, 0, 0))
		}
	}
	if m.MemoryMerge {
		calls = append(calls, tracer.Prctl(prSetMemoryMerge, 1, 0, 0, 0))
	}
	calls = append(calls, permissions(m)...)
	if len(calls) == 0 {
		return nil
	}
	if err := t.Traced.Run(t.Traced.Leader(), calls); err != nil {
		return err
	}
	for i := range calls {
		if calls[i].Nr == unix.SYS_ARCH_PRCTL && calls[i].Failed() {
			return fmt.Errorf("ask for the use of tiles (AMX), which the program may use: %w", calls[i].Errno())
		}
		// A registration that this kernel does not have, another did: the
		// program's next membarrier(2) would fail as on its own start here.
		if calls[i].Failed() && !errors.Is(calls[i].Errno(), unix.EINVAL) {
			return &tracer.CallError{Index: i, Call: calls[i]}
		}
	}
	return nil
}

// permissions asks for what threads may use only when somebody has asked: before
// there are alternate signal stacks, which may be too small for more of it.
func permissions(m *state.ProcessSettings) []tracer.Call {
	if m.XstatePermission>>xstateTiles&1 == 0 {
		return nil
	}
	return []tracer.Call{tracer.Syscall(unix.SYS_ARCH_PRCTL, archReqXcompPerm, xstateTiles)}
}

// denyWriteExecute comes last, since it forbids what the import does.
func denyWriteExecute(t *target.Task, m *state.ProcessSettings) error {
	if m == nil || m.DenyWriteExecute == 0 {
		return nil
	}
	return t.Run([]tracer.Call{tracer.Prctl(prSetMDWE, uint64(m.DenyWriteExecute), 0, 0, 0)})
}

// setThreads makes the threads' settings: those that only a thread can make
// itself, with its other calls, and those that the engine can.
func setThreads(t *target.Task, k *saved) error {
	for tid, m := range k.threadSettings {
		th := t.Threads[int(tid)]
		if th == nil {
			return fmt.Errorf("%w: settings of thread %d, which does not exist", errImage, tid)
		}
		nodes := uint64(0)
		if m.MemoryPolicy != 0 {
			var err error
			if nodes, err = t.PutLater(append(bytes.Clone(m.MemoryNodes), make([]byte, nodeBytes-len(m.MemoryNodes))...)); err != nil {
				return err
			}
		}
		if calls := settingCalls(m, nodes); len(calls) > 0 {
			t.Later(th, calls, checkSettings)
		}
		if err := setOutside(t, th.Tid, m); err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
	}
	return nil
}

// settingCalls are the calls of a thread; nodes is the address of its set.
func settingCalls(m *state.ThreadSettings, nodes uint64) []tracer.Call {
	var calls []tracer.Call
	if m.MachineCheck != mceDefault {
		calls = append(calls, tracer.Prctl(unix.PR_MCE_KILL, unix.PR_MCE_KILL_SET, uint64(m.MachineCheck), 0, 0))
	}
	if m.MemoryPolicy != 0 {
		calls = append(calls, tracer.Syscall(unix.SYS_SET_MEMPOLICY, uint64(m.MemoryPolicy), nodes, nodeBytes*8))
	}
	if m.TimeStampCounter == unix.PR_TSC_SIGSEGV {
		calls = append(calls, tracer.Prctl(unix.PR_SET_TSC, unix.PR_TSC_SIGSEGV))
	}
	if m.IoFlusher {
		calls = append(calls, tracer.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0))
	}
	for n, chosen := range m.Speculation {
		if chosen &= specChosen; chosen != 0 {
			calls = append(calls, tracer.Prctl(unix.PR_SET_SPECULATION_CTRL, uint64(n), uint64(chosen), 0, 0))
		}
	}
	return calls
}

// checkSettings: another host may have other nodes (EINVAL), or a processor
// that needs no such protection (ENXIO, ENODEV) or does not let itself be
// controlled (EPERM): then its own default is what a new program gets, too.
func checkSettings(calls []tracer.Call) error {
	for i := range calls {
		c := &calls[i]
		err := c.Errno()
		switch {
		case err == nil:
		case c.Nr == unix.SYS_SET_MEMPOLICY && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)):
		case c.Nr == unix.SYS_PRCTL && c.Args[0] == unix.PR_SET_IO_FLUSHER && errors.Is(err, unix.EPERM):
			// The live spec does not give CAP_SYS_RESOURCE.
		case c.Nr == unix.SYS_PRCTL && c.Args[0] == unix.PR_SET_SPECULATION_CTRL &&
			(errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM)):
		default:
			return &tracer.CallError{Index: i, Call: *c}
		}
	}
	return nil
}

// setOutside sets what the engine may set for any thread. CPUs that this host
// or the container's cpuset does not have are left out; without any of the
// image's the thread keeps what the container has.
func setOutside(t *target.Task, tid int, m *state.ThreadSettings) error {
	now, err := affinity(tid)
	if err != nil {
		return err
	}
	if want := common(m.Affinity, now); len(want) > 0 && !bytes.Equal(want, trim(now)) {
		if _, _, e := unix.Syscall(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), uintptr(len(want)), uintptr(unsafe.Pointer(&want[0]))); e != 0 {
			return fmt.Errorf("sched_setaffinity: %w", e)
		}
	}
	prio, err := ioPriority(tid)
	if err != nil || prio == m.IoPriority || !mayIOPriority(t, m.IoPriority) {
		return err
	}
	if _, _, e := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), uintptr(m.IoPriority)); e != 0 {
		return fmt.Errorf("ioprio_set: %w", e)
	}
	return nil
}

// mayIOPriority: the real-time class needs CAP_SYS_NICE (ioprio_set(2)) or
// CAP_SYS_ADMIN, which the live spec has to give.
func mayIOPriority(t *target.Task, prio uint32) bool {
	const classShift, realTime = 13, 1
	return prio>>classShift != realTime || t.Allowed().Effective&(1<<capSysNice|1<<unix.CAP_SYS_ADMIN) != 0
}

// common are the CPUs that are in both sets.
func common(a, b []byte) []byte {
	out := make([]byte, min(len(a), len(b)))
	for i := range out {
		out[i] = a[i] & b[i]
	}
	return trim(out)
}
