// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// A thread can have given up what threads share: by unshare(CLONE_FS) its
// working directory, root and umask, by unshare(CLONE_FILES) its descriptor
// table. The former are carried.

// separate lists the threads that have working directories of their own. What
// cannot be made again is refused: descriptor tables, and directories that some
// threads share and others do not.
func separate(env target.Env, pid int, proc procfs.Task) ([]int, error) {
	tids, err := proc.Threads()
	if err != nil {
		return nil, err
	}
	together := make([]bool, len(tids))
	err = env.Each(len(tids), func(i int) (err error) {
		together[i], err = sharesAll(pid, tids[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []int
	directories := target.NewSharers(target.ResourceFS)
	if _, err := directories.Add(pid); err != nil {
		return nil, err
	}
	for i, tid := range tids {
		if together[i] {
			continue
		}
		own, err := separated(directories, proc.Thread(tid), pid)
		if procfs.IsGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if own {
			out = append(out, tid)
		}
	}
	return out, nil
}

// sharesAll: a thread has what threads share in common with the leader, as nearly all
// have of what may be thousands. One that is not there any more has not.
func sharesAll(pid, tid int) (bool, error) {
	if tid == pid {
		return true, nil
	}
	for _, r := range []target.Resource{target.ResourceFiles, target.ResourceFS} {
		same, err := target.SharesWith(pid, tid, r)
		if procfs.IsGone(err) {
			return false, nil
		}
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// separated: a thread that does not share all has directories of its own.
func separated(directories *target.Sharers, proc procfs.Task, pid int) (bool, error) {
	tid := proc.Tid()
	what := fmt.Sprintf("thread %d", tid)
	same, err := target.SharesWith(pid, tid, target.ResourceFiles)
	if err != nil {
		return false, err
	}
	if st, err := proc.Status(); err != nil || !st.HasMM {
		return false, err // it is ending, and has no files any more
	}
	if !same {
		return false, &refusal{what, "it has a descriptor table of its own, which this version does not carry", ""}
	}
	with, err := directories.Add(tid)
	if err != nil {
		return false, err
	}
	if with != 0 && with != pid {
		return false, &refusal{what, fmt.Sprintf("it shares its working directory with thread %d and not with the others, which this version does not carry", with), ""}
	}
	return with == 0, nil
}

// workingOf describes a thread's own directories.
func (l *looker) workingOf(tid int) (*state.WorkingFiles, error) {
	own := *l
	own.proc = l.proc.Thread(tid)
	return own.working()
}

// setThreadWorking gives a thread directories of its own. The process must not
// have its own yet: what the thread starts with are the frame's.
func setThreadWorking(t *target.Task, tid int, w *state.WorkingFiles) error {
	p, err := t.PlanOf(tid)
	if err != nil {
		return err
	}
	p.Call(tracer.Syscall(unix.SYS_UNSHARE, unix.CLONE_FS))
	if err := enter(p, w); err != nil {
		return fmt.Errorf("thread %d: %w", tid, err)
	}
	return nil
}
