// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// Preflight names what this version cannot carry, while the tasks run.
func (s *Subsystem) Preflight(ctx context.Context) ([]record.Finding, error) {
	home, err := procfs.Host().Process(s.env.Source.Init).Namespaces()
	if err != nil {
		return nil, err
	}
	out, err := s.env.Source.Survey(ctx, func(t procfs.Task) (out []record.Finding, err error) {
		pid := t.Pid()
		for _, look := range []func() error{
			func() error { return inspect(t, pid == s.env.Source.Init) },
			func() error { return foreign(pid, home) },
			func() error { return blocked(pid) },
		} {
			err := look()
			var r *refusal
			if errors.As(err, &r) {
				out = append(out, record.Finding{Pid: pid, FD: -1, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy})
			} else if err != nil {
				return nil, err
			}
		}
		lost, err := coreCookies(t)
		return append(out, lost...), err
	})
	if err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	found, err := s.surveySharing()
	if err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	return append(out, found...), nil
}

// patience is how long it is looked whether something goes by.
const patience = 100 * time.Millisecond

// inspect looks at one process.
func inspect(t procfs.Task, first bool) error {
	st, err := t.Status()
	if err != nil {
		return err
	}
	what := "process " + st.Name
	switch {
	case first && (len(st.NStgid) < 2 || last(st.NStgid) != initPid):
		return &refusal{what, "the container has no pid namespace of its own", "run it without --pid=host"}
	case st.Tgid != st.Pid && !target.ThreadFiles(st.Pid):
		return &refusal{what, "its first thread has ended before the others, and this kernel gives out the files of no other", "use Linux 6.9 or later"}
	case st.TracerPid != 0:
		return &refusal{what, fmt.Sprintf("process %d traces it", st.TracerPid), "detach the debugger"}
	}
	if why := unknownPersonality(t.Pid()); why != "" {
		return &refusal{what, why, ""}
	}
	if why := unknownPolicy(t.Pid()); why != "" {
		return &refusal{what, why, "give it another policy: chrt(1)"}
	}
	return nil
}

// unknownPersonality says which bits of personality(2) would be lost.
func unknownPersonality(pid int) string {
	bits, err := procfs.Host().Process(pid).Personality()
	if err != nil || bits&^personalities == 0 {
		return ""
	}
	return fmt.Sprintf("its personality(2) has bits %#x, which weaken the protection of the address space and are not given to an image", bits&^personalities)
}

// foreign finds a namespace of its own: those of a copy are all the init's.
func foreign(pid int, home map[string]procfs.NSLink) error {
	own, err := procfs.Host().Process(pid).Namespaces()
	if err != nil {
		return err
	}
	for name, ns := range own {
		if at, ok := home[name]; ok && at.Inode != ns.Inode {
			return &refusal{fmt.Sprintf("process %d", pid), "it, or what it will start, is in another " + name + " namespace than the init", "run it in a container of its own"}
		}
	}
	return nil
}

// blocked refuses a process that runs in the memory of its parent, which waits in
// vfork(2) for it. For a moment that is no obstacle.
func blocked(pid int) error {
	t := procfs.Host().Process(pid)
	if !target.InVfork(pid) || age(t) < target.VforkPatience {
		return nil
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !target.InVfork(pid) {
			return nil
		}
	}
	return &refusal{fmt.Sprintf("process %d", pid), "its parent waits in vfork(2) for it to execute a program or to end, and neither happens: until then it runs in the memory of its parent, which cannot be stopped", "wait for it, or end it"}
}

// age is how long a process has been there.
func age(t procfs.Task) time.Duration {
	const userHZ = 100 // clock ticks of /proc in a second, on every architecture of ours
	var now unix.Timespec
	st, err := t.Stat()
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano()) - time.Duration(st.StartTime)*(time.Second/userHZ)
}

// torn refuses a process that has something in common with several others, none of
// which has all of that: one process has to make it in a copy.
func torn(pid int, common target.Common) *refusal {
	return &refusal{fmt.Sprintf("process %d", pid), fmt.Sprintf("it shares its %s with other processes, and all of that with none of them, which this version does not carry", common), ""}
}

// surveySharing looks at what running processes have in common. What is so for a
// moment only is no obstacle.
func (s *Subsystem) surveySharing() ([]record.Finding, error) {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		out, err := s.findTorn()
		if procfs.IsGone(err) {
			out, err = nil, nil // one has ended: it is found out again when all are stopped
		} else if len(out) > 0 && time.Now().Before(end) {
			continue
		}
		return out, err
	}
}

func (s *Subsystem) findTorn() (out []record.Finding, err error) {
	pids, err := s.env.Source.Pids()
	if err != nil || len(pids) < 2 {
		return nil, err
	}
	list, err := kin(pids)
	if err != nil {
		return nil, err
	}
	found, err := target.Relate(list)
	if err == nil {
		out, err = findStrays(pids)
	}
	if err != nil {
		return nil, err
	}
	for i, rel := range found {
		if rel.Torn {
			r := torn(list[i].Pid, rel.Common)
			out = append(out, record.Finding{Pid: list[i].Pid, FD: -1, Subsystem: Name, What: r.what, Why: r.why, Remedy: r.remedy})
		}
	}
	return out, nil
}

// kin are running processes by their age, the init first. One that has no memory any
// more is left out.
func kin(pids []int) ([]target.Kin, error) {
	born := map[int]target.Born{}
	var list []target.Kin
	for _, pid := range pids {
		t := procfs.Host().Process(pid)
		st, err := t.Status()
		if err != nil || !st.HasMM {
			continue
		}
		stat, err := procfs.Host().Process(st.Tgid).Stat()
		if err != nil {
			return nil, err
		}
		born[st.Tgid] = target.Born{Start: stat.StartTime, Pid: st.Tgid}
		list = append(list, target.Kin{Task: pid, Pid: st.Tgid, Parent: st.PPid})
	}
	if len(list) > 0 {
		rest := list[1:] // behind the init
		slices.SortStableFunc(rest, func(a, b target.Kin) int { return born[a.Pid].Compare(born[b.Pid]) })
	}
	return list, nil
}

// refuseShared looks again when all are stopped.
func (s *Subsystem) refuseShared(list []*target.Process) error {
	if err := refuseStrays(list); err != nil {
		return err
	}
	var home map[string]procfs.NSLink
	for _, p := range list {
		if p.Pid != s.env.Source.Init {
			if home == nil {
				var err error
				if home, err = procfs.Host().Process(s.env.Source.Init).Namespaces(); err != nil {
					return err
				}
			}
			if err := foreign(p.Pid, home); err != nil {
				return err
			}
		}
		if _, common, apart := p.Relation(); apart {
			return torn(p.Pid, common)
		}
	}
	return nil
}
