// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// A process inherits its controlling terminal when it is made, and can get one
// later only if it leads a session (tty_ioctl of drivers/tty/tty_jobctrl.c). So
// the frame's first process makes all pseudoterminals while it is alone; the
// others inherit their masters, and lose them in MoveStdio.

// TerminalPlan is a pseudoterminal to be made.
type TerminalPlan struct {
	// Index is its number in the image; a new one gets the same.
	Index int
	// Console: it is the one that the container was created with.
	Console bool
	// Gone: nobody in the image has its master.
	Gone bool
	Size unix.Winsize
}

// MadeTerminal is a pseudoterminal of the frame.
type MadeTerminal struct {
	// Index is its number in the frame's devpts, which differs from the image's
	// for a console only.
	Index         int
	Console, Gone bool
	// Master is the frame's own descriptor of the master, in its first task; -1
	// for a console, and when it has been closed.
	Master int
}

// Controls reports whether it is the controlling terminal of a task.
func (m *MadeTerminal) Controls(t *Task) bool {
	stat, err := t.Proc.Stat()
	return err == nil && stat.TTY().Major == ptsMajor && int(stat.TTY().Minor) == m.Index
}

// Verify compares it with what ioctl(TIOCGDEV) wrote about a descriptor.
func (m *MadeTerminal) Verify(number []byte) error {
	dev := uint64(binary.LittleEndian.Uint32(number))
	if unix.Major(dev) != ptsMajor || int(unix.Minor(dev)) != m.Index {
		return fmt.Errorf("device %d:%d was opened, not pts/%d: what the container has at this path is not its devpts", unix.Major(dev), unix.Minor(dev), m.Index)
	}
	return nil
}

// MaxTerminals bounds the indices of an image: the kernel's own limit for all
// containers together is 4096 (kernel.pty.max), unless it was raised.
const MaxTerminals = 4096

// SlavePath is where the slave of a terminal is found.
func SlavePath(index int) string { return fmt.Sprintf("/dev/pts/%d", index) }

// masterPath is devpts' own multiplexer: /dev/ptmx is a link to it, or stands
// for it.
const masterPath = "/dev/pts/ptmx"

// ErrNoConsole says that the image's container has a terminal, and this one was created
// without.
var ErrNoConsole = errors.New("the image's container has a terminal and the new one was created without: create it with one (-t)")

// MakeTerminals makes pseudoterminals, in ascending order of their indices, in
// the frame's first process, which has to be the only one.
func (f *Frame) MakeTerminals(list []TerminalPlan) error {
	if len(list) == 0 {
		return nil
	}
	t := f.Task(FirstTask)
	// The change of a terminal's size is told its foreground process group,
	// which the frame may be.
	if err := t.Traced.AvoidSignals(1<<(unix.SIGWINCH-1) | 1<<(unix.SIGHUP-1) | 1<<(unix.SIGCONT-1)); err != nil {
		return err
	}
	m := &terminalMaker{task: t, made: map[int]*MadeTerminal{}}
	for _, p := range list {
		if err := m.one(p); err != nil {
			return fmt.Errorf("terminal pts/%d: %w", p.Index, err)
		}
	}
	if err := m.closeSpare(); err != nil {
		return err
	}
	f.mu.Lock()
	f.terminals = m.made
	f.mu.Unlock()
	return t.Disregard(unix.SIGWINCH)
}

// Terminals are all of them.
func (f *Frame) Terminals() []*MadeTerminal {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.terminals))
}

// Terminal is a terminal by its number in the image, nil if there is none.
func (f *Frame) Terminal(index int) *MadeTerminal {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.terminals[index]
}

type terminalMaker struct {
	task *Task
	made map[int]*MadeTerminal
	// spare are masters of numbers that the image leaves out: devpts gives the
	// lowest that is free.
	spare []int
}

func (m *terminalMaker) one(want TerminalPlan) error {
	if want.Console {
		return m.console(want)
	}
	for {
		fd, index, err := m.open()
		if err != nil {
			return err
		}
		switch {
		case index < want.Index:
			m.spare = append(m.spare, fd)
		case index > want.Index:
			m.spare = append(m.spare, fd)
			return errors.New("the number is in use in the container's devpts")
		default:
			made := &MadeTerminal{Index: index, Gone: want.Gone, Master: fd}
			m.made[want.Index] = made
			m.task.Table.Carry(&made.Master)
			return m.prepare(fd, want.Size)
		}
	}
}

// console takes the terminal that the frame was created with.
func (m *terminalMaker) console(want TerminalPlan) error {
	stat, err := m.task.Proc.Stat()
	if err != nil {
		return err
	}
	dev := stat.TTY()
	if dev.Major != ptsMajor {
		return ErrNoConsole
	}
	m.made[want.Index] = &MadeTerminal{Index: int(dev.Minor), Console: true, Master: -1}
	p := m.task.Plan()
	p.Call(tracer.Syscall(unix.SYS_IOCTL, consoleFD, unix.TIOCSWINSZ, p.Put(encodeWinsize(want.Size))))
	return p.Run()
}

// consoleFD is a descriptor of the console in every process of the frame, until
// MoveStdio.
const consoleFD = 0

// open makes a pseudoterminal and returns a master and its index.
func (m *terminalMaker) open() (fd, index int, err error) {
	p := m.task.Plan()
	cwd := int64(unix.AT_FDCWD)
	p.NarrowFiles()
	fd = p.Open(tracer.Syscall(unix.SYS_OPENAT, uint64(cwd), p.PutString(masterPath), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	p.WidenFiles()
	at, number := p.Out(4)
	p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), unix.TIOCGPTN, at))
	if err := p.Run(); err != nil {
		return -1, -1, fmt.Errorf("make a pseudoterminal (does the container have a devpts of its own?): %w", err)
	}
	return fd, int(binary.LittleEndian.Uint32(number)), nil
}

// prepare unlocks a pseudoterminal and gives it its size while nobody has it.
func (m *terminalMaker) prepare(fd int, size unix.Winsize) error {
	p := m.task.Plan()
	p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), unix.TIOCSPTLCK, p.Put(make([]byte, 4))))
	p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), unix.TIOCSWINSZ, p.Put(encodeWinsize(size))))
	return p.Run()
}

func encodeWinsize(w unix.Winsize) (b []byte) {
	for _, v := range []uint16{w.Row, w.Col, w.Xpixel, w.Ypixel} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

func (m *terminalMaker) closeSpare() error {
	p := m.task.Plan()
	for _, fd := range m.spare {
		p.Close(fd)
	}
	return p.Run()
}

// slave appends calls that give the task a descriptor of the slave, which the
// returned function closes again. It works until MoveStdio.
func (p *Plan) slave(m *MadeTerminal) (fd int, done func()) {
	if m.Console {
		return consoleFD, func() {}
	}
	fd = p.Open(tracer.Syscall(unix.SYS_IOCTL, uint64(m.Master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	return fd, func() { p.Close(fd) }
}

// TakeTerminal makes a terminal the controlling one of the session that the
// task leads.
func (t *Task) TakeTerminal(m *MadeTerminal) error {
	p := t.Plan()
	fd, done := p.slave(m)
	p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), unix.TIOCSCTTY, 0))
	done()
	if err := p.Run(); err != nil {
		return fmt.Errorf("make pts/%d a controlling terminal: %w", m.Index, err)
	}
	return nil
}

// LeaveTerminal takes the controlling terminal from the task: from the whole
// session if it leads that, otherwise from it alone.
func (t *Task) LeaveTerminal(m *MadeTerminal) error {
	p := t.Plan()
	fd, done := p.slave(m)
	p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), unix.TIOCNOTTY))
	done()
	if err := p.Run(); err != nil {
		return fmt.Errorf("leave the controlling terminal pts/%d: %w", m.Index, err)
	}
	// A leader is told by signals.
	return errors.Join(t.Disregard(unix.SIGHUP), t.Disregard(unix.SIGCONT))
}

// SetForeground makes a process group the one in the foreground of the task's
// controlling terminal. Every signal is blocked, so that it may be done from
// the background (tcsetpgrp(3)).
func (t *Task) SetForeground(m *MadeTerminal, group int) error {
	p := t.Plan()
	fd, done := p.slave(m)
	p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), unix.TIOCSPGRP, p.Put(binary.LittleEndian.AppendUint32(nil, uint32(group)))))
	done()
	if err := p.Run(); err != nil {
		return fmt.Errorf("make process group %d the foreground of pts/%d: %w", group, m.Index, err)
	}
	return nil
}
