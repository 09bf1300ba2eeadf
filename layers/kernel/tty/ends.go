// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// openEnd makes one open file description.
func (s *Subsystem) openEnd(first *target.Task, desc uint64) error {
	e := s.ends[desc]
	m, err := s.made(int(e.Index))
	if err != nil {
		return err
	}
	if !s.env.Frame.Wanted(desc) {
		return errors.New("no process has it")
	}
	if e.Side == state.TerminalSide_TERMINAL_SIDE_MASTER {
		return placeMaster(first, desc, m, e)
	}
	t, path := s.opener(desc, m, e)
	p := t.Plan()
	cwd := int64(unix.AT_FDCWD)
	p.NarrowFiles()
	fd := p.Open(tracer.Syscall(unix.SYS_OPENAT, uint64(cwd), p.PutString(path), uint64(e.Flags|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC)))
	p.WidenFiles()
	at, number := p.Out(4)
	p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), unix.TIOCGDEV, at))
	p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETFL, uint64(e.Flags&target.StatusFlags)))
	if err := p.Place(desc, fd); err != nil {
		return err
	}
	if err := p.Run(); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return m.Verify(number)
}

// placeMaster gives a master its place. The frame's own descriptor stays.
func placeMaster(first *target.Task, desc uint64, m *target.MadeTerminal, e *state.TerminalEnd) error {
	if m.Master < 0 || m.Gone {
		return errors.New("the container has no master of this terminal")
	}
	p := first.Plan()
	fd := p.DupAbove(m.Master, first.Table.Aside())
	p.Call(tracer.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETFL, uint64(e.Flags&target.StatusFlags)))
	if err := p.Place(desc, fd); err != nil {
		return err
	}
	return p.Run()
}

// opener chooses the process that opens a slave, and by which path. /dev/tty
// needs one whose controlling terminal it is; where there is none any more, the
// slave is opened by its own name.
func (s *Subsystem) opener(desc uint64, m *target.MadeTerminal, e *state.TerminalEnd) (*target.Task, string) {
	var holder, controlled *target.Task
	for _, t := range s.env.Frame.Tasks() {
		if holder == nil && len(t.Table.Slots(desc)) > 0 {
			holder = t
		}
		if e.Side == state.TerminalSide_TERMINAL_SIDE_CONTROLLING && controlled == nil && m.Controls(t) {
			controlled = t
		}
	}
	switch {
	case controlled != nil && m.Controls(holder):
		return holder, controllingPath
	case controlled != nil:
		return controlled, controllingPath
	case e.Path == consolePath && m.Console:
		return holder, consolePath
	}
	return holder, target.SlavePath(m.Index)
}
