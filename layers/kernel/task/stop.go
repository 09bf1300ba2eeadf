// SPDX-License-Identifier: Apache-2.0

package task

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// stopped: the process is stopped by job control, or will be before it runs
// another instruction. Which signal stopped it is not kept: a restored process
// is stopped by SIGSTOP, since the handler of another one would run.
func stopped(p *target.Process) (bool, error) {
	shared := true
	for _, th := range p.Traced.Threads() {
		if th.Stopped != 0 {
			return true, nil
		}
		for _, queue := range []bool{false, shared} {
			infos, err := th.PeekSiginfo(queue)
			if err != nil {
				return false, err
			}
			for i := range infos {
				if infos[i].Signo() == int(unix.SIGSTOP) {
					return true, nil
				}
			}
		}
		shared = false // once is enough
	}
	return false, nil
}

// findUnreported asks the parents of stopped processes whether wait(2) would
// still tell them.
func findUnreported(processes []*target.Process, nodes []*state.Node) error {
	byPid := map[int32]*target.Process{}
	for _, p := range processes {
		byPid[int32(p.Traced.NSPid)] = p
	}
	for _, n := range nodes {
		parent := byPid[n.Parent]
		if !n.Stopped || parent == nil {
			continue
		}
		var err error
		if n.StopUnreported, err = unreported(parent, int(n.Pid)); err != nil {
			return err
		}
	}
	return nil
}

// unreported asks a parent by waitid(2), which takes nothing with WNOWAIT.
func unreported(parent *target.Process, child int) (bool, error) {
	sc, err := parent.Traced.Scratch()
	if err != nil {
		return false, err
	}
	defer sc.Release(sc.Mark())
	info := make([]byte, infoSize)
	at, err := sc.Put(info)
	if err != nil {
		return false, err
	}
	calls := []tracer.Call{tracer.Syscall(unix.SYS_WAITID, unix.P_PID, uint64(child), at, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, 0)}
	if err := parent.Traced.Run(parent.Traced.Leader(), calls); err != nil {
		return false, err
	}
	// ECHILD: it is no child as wait(2) sees it.
	if err := tracer.Check(calls); err != nil {
		if errors.Is(err, unix.ECHILD) {
			return false, nil
		}
		return false, err
	}
	err = parent.Traced.Read(at, info)
	return binary.LittleEndian.Uint32(info) == uint32(unix.SIGCHLD), err
}

// infoSize is that of siginfo_t (include/uapi/asm-generic/siginfo.h); it begins
// with the signal's number, 0 if there was nothing to report.
const infoSize = 128

// stopAgain has a process stopped when it is let go.
func (s *Subsystem) stopAgain(t *target.Task) {
	for _, n := range s.tree {
		if n.Id != uint32(t.ID) || !n.Stopped {
			continue
		}
		stop := target.Stop{Unreported: n.StopUnreported}
		for _, o := range s.tree {
			if !dead(o) && n.Pid != initPid && o.Pid == max(n.Parent, initPid) {
				stop.Parent = s.env.Frame.Task(record.ProcessID(o.Id))
			}
		}
		t.StopAtRestart(stop)
	}
}
