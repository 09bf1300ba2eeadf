// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// A thread can have given up what threads share: by unshare(CLONE_FS) its working
// directory, root and umask, by unshare(CLONE_FILES) its descriptor table; and threads
// that it makes then have what it has.

// firsts are the threads that stand for directories and for tables that threads have
// of their own.
func firsts(list []target.Apart) (directories, tables []int) {
	for _, a := range list {
		if a.Directories == a.Tid {
			directories = append(directories, a.Tid)
		}
		if a.Table == a.Tid {
			tables = append(tables, a.Tid)
		}
	}
	return directories, tables
}

// readable refuses a table of a thread where the kernel does not give out what is in it.
func readable(tables []int) error {
	for _, tid := range tables {
		if !target.ThreadFiles(tid) {
			return &refusal{fmt.Sprintf("thread %d", tid), "it has a descriptor table of its own, and this kernel gives out the files of no thread alone", "use Linux 6.9 or later"}
		}
	}
	return nil
}

// workingOf describes a thread's own directories.
func (l *looker) workingOf(tid int) (*state.WorkingFiles, error) {
	own := *l
	own.proc = l.proc.Thread(tid)
	return own.working()
}

// pushThreadTables sends the tables that threads have of their own. list are the
// descriptors of all of them.
func pushThreadTables(ctx context.Context, p *target.Process, tids map[int]int, tables []int, list []target.Descriptor, out record.Sink) error {
	for _, tid := range tables {
		h := record.Header{Process: p.ID, Kind: KindThreadTable, Entity: uint64(tids[tid]) << threadShift}
		if err := pushTable(ctx, h, inTable(list, tid), out); err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
	}
	return nil
}

// inTable are the descriptors of one table of a process: of a thread's own, or with 0
// of its own.
func inTable(list []target.Descriptor, thread int) (out []target.Descriptor) {
	for i := range list {
		if d := &list[i]; d.Thread == thread && !d.InFlight {
			out = append(out, *d)
		}
	}
	return out
}

// settleThreads gives threads what they have of their own: directories, and the locks
// of their tables, in which nothing is closed any more.
func settleThreads(t *target.Task, tab *table) error {
	for tid, w := range tab.threads {
		if err := setThreadWorking(t, tid, w); err != nil {
			return err
		}
	}
	for _, a := range t.Apart {
		if a.Directories == a.Tid && tab.threads[a.Tid] == nil {
			return fmt.Errorf("the image has no directories for thread %d, which has its own", a.Tid)
		}
	}
	for tid, own := range tab.own {
		p, err := t.PlanInTable(tid)
		if err == nil {
			err = setLocks(p, own.posix)
		}
		if err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
	}
	return nil
}

// setThreadWorking gives a thread directories of its own. Where it was not made with
// some, the process must not have its own yet: what it starts with are the frame's.
func setThreadWorking(t *target.Task, tid int, w *state.WorkingFiles) error {
	p, err := t.PlanOf(tid)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(t.Apart, func(a target.Apart) bool { return a.Tid == tid && a.Directories != 0 })
	switch {
	case i < 0:
		p.Call(tracer.Syscall(unix.SYS_UNSHARE, unix.CLONE_FS))
	case t.Apart[i].Directories != tid:
		return fmt.Errorf("thread %d has directories of its own, and those of thread %d", tid, t.Apart[i].Directories)
	}
	if err := enter(p, w); err != nil {
		return fmt.Errorf("thread %d: %w", tid, err)
	}
	return nil
}
