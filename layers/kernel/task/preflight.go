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
	shared := sharing{}
	out, err := s.env.Source.Survey(ctx, func(t procfs.Task) (out []record.Finding, err error) {
		pid := t.Pid()
		for _, look := range []func() error{
			func() error { return inspect(t, pid == s.env.Source.Init) },
			func() error { return foreign(pid, home) },
			func() error { return shared.add(pid) },
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
	return out, nil
}

// patience is how long a vfork child is given to be seen as one.
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
	case st.Tgid != st.Pid && !threadFiles(st.Pid):
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

// threadFiles: there is a pidfd of a thread that is no leader, or it has ended.
func threadFiles(tid int) bool {
	fd, err := target.Pidfd(tid)
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, unix.EINVAL)
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

// sharing finds processes that share what a fork does not.
type sharing map[target.Resource]*target.Sharers

// unshared is what two processes of an image cannot have in common; the first
// that is found is named (who shares handlers shares memory, too).
var unshared = []struct {
	resource target.Resource
	what     string
}{
	{target.ResourceSighand, "signal handlers"},
	{target.ResourceVM, "memory"},
	{target.ResourceFiles, "descriptor table"},
	{target.ResourceFS, "working directory, root and umask"},
}

// add compares a process with those before it. A vfork child runs in its
// parent's memory for a moment, which is no obstacle.
func (s sharing) add(pid int) error {
	for _, u := range unshared {
		res, what := u.resource, u.what
		if s[res] == nil {
			s[res] = target.NewSharers(res)
		}
		with, err := s[res].Add(pid)
		if err != nil {
			return err
		}
		if (res == target.ResourceFS || res == target.ResourceFiles) && with != 0 {
			ok, err := target.SharesWithParent(pid, res)
			if err != nil {
				return err
			}
			if ok {
				continue // by a fork that leaves it in common
			}
		}
		if with != 0 && lasting(pid, with, res) {
			if res == target.ResourceVM && waitedFor(pid) {
				return &refusal{fmt.Sprintf("process %d", pid), "its parent waits in vfork(2) for it to execute a program or to end, and neither happens: until then it runs in the memory of its parent, which cannot be stopped", "wait for it, or end it"}
			}
			return &refusal{fmt.Sprintf("process %d", pid), fmt.Sprintf("it shares its %s with process %d, which this version does not carry", what, with), ""}
		}
	}
	return nil
}

// transient: the process is ending and has nothing any more that it could
// share, or it is a vfork child, which shares its memory alone, and has not been
// one for long.
func transient(pid int, res target.Resource) bool {
	t := procfs.Host().Process(pid)
	st, err := t.Status()
	if err != nil || !st.HasMM || st.State == 'X' || st.State == 'Z' {
		return true
	}
	if res != target.ResourceVM {
		return false
	}
	parent, err := procfs.Host().Process(target.Living(st.PPid)).Status()
	return err != nil || !parent.HasMM || waitedFor(pid) && age(t) < vforkPatience
}

// vforkPatience is after how long a vfork child is none that is about to execute a
// program.
const vforkPatience = 2 * time.Second

// waitedFor: a thread of the process's parent waits in the kernel, as it does in
// vfork(2), and shows state D then.
func waitedFor(pid int) bool {
	st, err := procfs.Host().Process(pid).Status()
	if err != nil {
		return false
	}
	parent := procfs.Host().Process(st.PPid)
	tids, err := parent.Threads()
	return err == nil && slices.ContainsFunc(tids, func(tid int) bool {
		st, err := parent.Thread(tid).Stat()
		return err == nil && st.State == 'D'
	})
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

// lasting: what two processes share they do not share for a moment only.
func lasting(pid, with int, res target.Resource) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		same, err := target.SharesWith(pid, with, res)
		if err != nil || !same || transient(pid, res) || transient(with, res) {
			return false
		}
	}
	return true
}

// refuseShared looks again when all are stopped.
func (s *Subsystem) refuseShared(list []*target.Process) error {
	var home map[string]procfs.NSLink
	shared := sharing{}
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
		if err := shared.add(p.Pid); err != nil {
			return err
		}
	}
	return nil
}
