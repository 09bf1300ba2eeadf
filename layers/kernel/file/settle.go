// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// settle closes what is not the image's and does what must come after every
// close: closing any descriptor of a file ends the process's POSIX locks on it.
func (s *Subsystem) settle(id record.ProcessID) error {
	t, err := s.env.Frame.Stopped(id)
	if err != nil {
		return err
	}
	tab := s.in.tables[id]
	if t.SharesTable {
		err = t.LowerLimit()
	} else {
		err = s.settleTable(t, tab)
	}
	if err != nil {
		return err
	}
	if err := settleThreads(t, tab); err != nil {
		return fmt.Errorf("process %d: %w", id, err)
	}
	if t.SharesDirectories {
		return nil // those of its maker are its own
	}
	if err := enter(t.Plan(), tab.working); err != nil {
		return fmt.Errorf("process %d: %w", id, err)
	}
	return nil
}

// settleTable does it for a table.
func (s *Subsystem) settleTable(t *target.Task, tab *table) error {
	if err := s.setOwners(t, true); err != nil {
		return fmt.Errorf("process %d: %w", t.ID, err)
	}
	if err := t.CloseOwn(); err != nil {
		return err
	}
	if missing := t.Table.Missing(); len(missing) > 0 {
		return fmt.Errorf("process %d: nobody carries the description of descriptor %d (and %d more): the image is incomplete", t.ID, missing[0], len(missing)-1)
	}
	if err := setLocks(t.Plan(), tab.posix); err != nil {
		return fmt.Errorf("process %d: %w", t.ID, err)
	}
	if err := s.setOwners(t, false); err != nil {
		return fmt.Errorf("process %d: %w", t.ID, err)
	}
	return nil
}

// setLocks takes the locks that belong to whoever has the table of the plan.
func setLocks(p *target.Plan, locks []*state.RangeLock) error {
	for _, k := range locks {
		p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(k.Fd), unix.F_SETLK, p.Put(encodeFlock(k))))
	}
	err := p.Run()
	var ce *tracer.CallError
	if errors.As(err, &ce) {
		k := locks[ce.Index]
		return fmt.Errorf("lock on bytes %d+%d of descriptor %d: %w (does somebody else hold a lock on the file?)", k.Start, k.Length, k.Fd, err)
	}
	return err
}

// enter enters the directories. The working directory comes first: its
// path is that of the container, and chroot(2) does not change it.
func enter(p *target.Plan, w *state.WorkingFiles) error {
	p.NarrowFiles()
	cwd := p.Call(tracer.Syscall(unix.SYS_CHDIR, p.PutString(w.Cwd)))
	root := -1
	if w.Root != "/" {
		root = p.Call(tracer.Syscall(unix.SYS_CHROOT, p.PutString(w.Root)))
	}
	p.WidenFiles()
	p.Call(tracer.Syscall(unix.SYS_UMASK, uint64(w.Umask)))
	err := p.Run()
	var ce *tracer.CallError
	if errors.As(err, &ce) {
		switch ce.Index {
		case cwd:
			return fmt.Errorf("change to the working directory %s: %w", w.Cwd, err)
		case root:
			return fmt.Errorf("change the root to %s: %w", w.Root, err)
		}
	}
	return err
}
