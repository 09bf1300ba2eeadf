// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// Device numbers of terminals, Documentation/admin-guide/devices.txt.
const (
	auxMajor, ttyMinor, ptmxMinor = 5, 0, 2
	// ptsMajor is the first of eight majors; Linux uses the first for all.
	ptsMajor = 136
)

var ttyDevice, ptmxDevice = unix.Mkdev(auxMajor, ttyMinor), unix.Mkdev(auxMajor, ptmxMinor)

// Terminal reports whether the description is an end of a pseudoterminal: its
// master, its slave, or /dev/tty.
func (d *Descriptor) Terminal() bool {
	if d.Stat.Mode&unix.S_IFMT != unix.S_IFCHR || d.Flags&unix.O_PATH != 0 {
		return false
	}
	return unix.Major(d.Stat.Rdev) == ptsMajor || d.Stat.Rdev == ttyDevice || d.Stat.Rdev == ptmxDevice
}

// Terminal is a pseudoterminal of the source.
type Terminal struct {
	// Index is N of /dev/pts/N.
	Index int
	// Console: it is the container's own, whose master the runtime has.
	Console bool
	// Foreign: it does not belong to the container's own devpts.
	Foreign bool
	// HungUp: its master was closed, so its number is free or will be.
	HungUp bool
	// Session is whose controlling terminal it is and Foreground its foreground
	// process group, both as the container numbers them; 0 if there is none.
	Session, Foreground int
	// Ends are the descriptors that lead to it.
	Ends []TerminalEnd
}

// TerminalEnd is a descriptor that leads to a terminal.
type TerminalEnd struct {
	Pid int
	// Process is nil while the tasks run.
	Process    *Process
	Descriptor *Descriptor
	// Master, Controlling: it is the master; it was opened as /dev/tty.
	Master, Controlling bool
}

// Master is a descriptor of the master, nil if the container has none.
func (t *Terminal) Master() *TerminalEnd { return t.end(true) }

// Slave is a descriptor of the slave, nil if the container has none.
func (t *Terminal) Slave() *TerminalEnd { return t.end(false) }

func (t *Terminal) end(master bool) *TerminalEnd {
	for i := range t.Ends {
		if t.Ends[i].Master == master {
			return &t.Ends[i]
		}
	}
	return nil
}

// Open duplicates the end into the engine, see Process.OpenDescriptor.
func (e *TerminalEnd) Open() (*Duplicate, error) {
	if e.Process != nil {
		return e.Process.Open(e.Descriptor)
	}
	return Duplicated(e.Descriptor)
}

// OpenDescriptor duplicates a descriptor of the task into the engine, see
// Process.OpenDescriptor.
func (t *Task) OpenDescriptor(fd int) (*Duplicate, error) { return duplicate(t.Pid, fd) }

// duplicate takes a descriptor of a process that may run.
func duplicate(pid, fd int) (*Duplicate, error) {
	pidfd, err := Pidfd(pid)
	if err != nil {
		return nil, fmt.Errorf("open a pidfd of pid %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	n, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, fmt.Errorf("take descriptor %d of pid %d: %w", fd, pid, err)
	}
	return &Duplicate{n}, nil
}

// Terminals are the pseudoterminals that the stopped container has, or that
// control a session of it, in ascending order of their indices.
func (s *Source) Terminals() ([]*Terminal, error) {
	g := newTerminals(s)
	for _, p := range s.Processes() {
		list, err := p.Descriptors()
		if err != nil {
			return nil, err
		}
		if err := g.add(p.Proc, p, list); err != nil {
			return nil, fmt.Errorf("pid %d: %w", p.Pid, err)
		}
	}
	return g.finish()
}

// LookTerminals is Terminals while the tasks run: what of it comes and goes may
// be missing.
func (s *Source) LookTerminals(ctx context.Context) ([]*Terminal, error) {
	pids, err := s.Pids()
	if err != nil {
		return nil, err
	}
	g := newTerminals(s)
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		list, err := s.Look(pid)
		if err == nil {
			err = g.add(s.proc.Process(pid), nil, list)
		}
		if err != nil && !procfs.IsGone(err) {
			return nil, fmt.Errorf("pid %d: %w", pid, err)
		}
	}
	return g.finish()
}

// terminals collects them.
type terminals struct {
	source *Source
	by     map[int]*Terminal
	// groups are the process groups as the container numbers them, foreground
	// those of terminals, by the host's numbers.
	groups     map[int]int
	foreground map[int]int
	// gone are ends of which only that they are hung up is known.
	gone []TerminalEnd
	// devpts is the device of the container's devpts; own: only it has that.
	devpts uint64
	own    bool
	looked bool
}

func newTerminals(s *Source) *terminals {
	return &terminals{source: s, by: map[int]*Terminal{}, groups: map[int]int{}, foreground: map[int]int{}}
}

func (g *terminals) terminal(index int) *Terminal {
	t := g.by[index]
	if t == nil {
		t = &Terminal{Index: index}
		g.by[index] = t
	}
	return t
}

// add takes a process.
func (g *terminals) add(proc procfs.Task, p *Process, list []Descriptor) error {
	for i := range list {
		if d := &list[i]; d.Owner() == OwnerTTY {
			if err := g.addEnd(TerminalEnd{Pid: proc.Pid(), Process: p, Descriptor: d}); err != nil {
				return fmt.Errorf("fd %d: %w", d.FD, err)
			}
		}
	}
	stat, err := proc.Stat()
	if err != nil {
		return err
	}
	st, err := proc.Status()
	if err != nil {
		return err
	}
	g.groups[stat.Pgrp] = innermost(st.NSpgid)
	if dev := stat.TTY(); dev.Major == ptsMajor {
		t := g.terminal(int(dev.Minor))
		t.Session = innermost(st.NSsid)
		g.foreground[t.Index] = stat.Tpgid
	}
	return nil
}

func innermost(list []int) int {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1]
}

// addEnd finds out to which terminal a descriptor leads.
func (g *terminals) addEnd(e TerminalEnd) error {
	d := e.Descriptor
	if d.Stat.Rdev == ptmxDevice {
		if d.Info.TTYIndex < 0 {
			return errors.New("the kernel does not tell the number of a terminal's master (tty-index, Linux 4.13)")
		}
		e.Master = true
		t := g.terminal(d.Info.TTYIndex)
		t.Foreign = t.Foreign || g.foreign(e)
		t.Ends = append(t.Ends, e)
		return nil
	}
	e.Controlling = d.Stat.Rdev == ttyDevice
	f, err := e.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	dev, err := unix.IoctlGetUint32(int(f.Fd()), unix.TIOCGDEV)
	hungUp := errors.Is(err, unix.EIO)
	switch {
	case err != nil && !hungUp:
		return os.NewSyscallError("ioctl(TIOCGDEV)", err)
	case hungUp && e.Controlling:
		g.gone = append(g.gone, e)
		return nil
	case hungUp:
		dev = uint32(d.Stat.Rdev) // as below, for the numbers that there are
	}
	t := g.terminal(int(unix.Minor(uint64(dev))))
	t.HungUp = t.HungUp || hungUp
	t.Foreign = t.Foreign || unix.Major(uint64(dev)) != ptsMajor || !e.Controlling && g.foreign(e)
	t.Ends = append(t.Ends, e)
	return nil
}

// foreign: the end is of another devpts than that on the container's own
// /dev/pts, or others have that, too. The inode of a master may be /dev/ptmx,
// which stands for the devpts on the directory beside it.
func (g *terminals) foreign(e TerminalEnd) bool {
	if !g.looked {
		g.looked = true
		g.devpts, g.own = ownDevpts(g.source.Init)
	}
	return !g.own || !e.Master && e.Descriptor.Stat.Dev != g.devpts
}

// ownDevpts returns the device of what is mounted on /dev/pts of a process, if
// the engine does not see it, too.
func ownDevpts(pid int) (dev uint64, own bool) {
	var st unix.Stat_t
	if Lstat(pid, "/dev/pts", &st) != nil {
		return 0, false
	}
	mounts, err := procfs.Host().Process(os.Getpid()).Mountinfo()
	if err != nil {
		return 0, false
	}
	number := procfs.Dev{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)}
	return st.Dev, !slices.ContainsFunc(mounts, func(m procfs.Mount) bool { return m.Dev == number })
}

// finish adds what is known only when all processes are.
func (g *terminals) finish() ([]*Terminal, error) {
	if len(g.by) > 0 && g.source.Terminal {
		if t := g.by[g.source.consoleIndex()]; t != nil && !t.HungUp && t.Master() == nil {
			t.Console = true
		}
	}
	out := make([]*Terminal, 0, len(g.by)+1)
	for _, i := range slices.Sorted(maps.Keys(g.by)) {
		t := g.by[i]
		t.Foreground = g.groups[g.foreground[i]]
		out = append(out, t)
	}
	if len(g.gone) > 0 {
		next := 0
		if n := len(out); n > 0 {
			next = out[n-1].Index + 1
		}
		out = append(out, &Terminal{Index: next, HungUp: true, Ends: g.gone})
	}
	return out, nil
}

// consoleIndex is the number of the container's own terminal: the runtime binds
// it to /dev/console, and makes it before any other.
func (s *Source) consoleIndex() int {
	var st unix.Stat_t
	if Lstat(s.Init, "/dev/console", &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(st.Rdev) == ptsMajor {
		return int(unix.Minor(st.Rdev))
	}
	return 0
}
