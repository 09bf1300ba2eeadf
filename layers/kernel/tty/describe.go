// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// Requests of include/uapi/asm-generic/ioctls.h that x/sys lacks, and
// TIOCM_RESET's like are no business of pseudoterminals.
const (
	tiocGPTLCK = 0x80045439
	tiocGPKT   = 0x80045438
	tiocGEXCL  = 0x80045440
)

// disciplineTTY is N_TTY of include/uapi/linux/tty.h.
const disciplineTTY = 0

// unsupported says why a terminal cannot be carried, nil if it can.
func unsupported(t *target.Terminal) *refusal {
	what := fmt.Sprintf("terminal pts/%d", t.Index)
	switch {
	case t.Foreign:
		return &refusal{what, "it is not one of the container's own devpts: its other end is outside, or it cannot be made again under its number", "mount a new devpts on /dev/pts"}
	case t.Index >= target.MaxTerminals:
		return &refusal{what, fmt.Sprintf("its number is beyond %d", target.MaxTerminals-1), "close terminals"}
	}
	for i := range t.Ends {
		if t.HungUp && t.Ends[i].Descriptor.Flags&unix.O_ASYNC != 0 {
			return &refusal{what, "it is hung up, and somebody is told of its I/O by a signal (O_ASYNC), which nobody can ask for any more", "close it"}
		}
	}
	return nil
}

// orphaned: somebody outside has the master, and it is not the container's own.
func orphaned(t *target.Terminal) bool { return !t.Console && !t.HungUp && t.Master() == nil }

// carried: its state travels. Of others only the ends do.
func carried(t *target.Terminal) bool { return !t.HungUp && !orphaned(t) }

// describe reads the state of a terminal whose processes may run. Nothing is
// changed in it.
func describe(t *target.Terminal, init procfs.Task) (*state.Terminal, error) {
	f, done, err := open(t, init)
	if err != nil {
		return nil, err
	}
	defer done()
	m := &state.Terminal{}
	// The master answers for the slave.
	termios, err := unix.IoctlGetTermios(f, unix.TCGETS2)
	if err != nil {
		return nil, os.NewSyscallError("ioctl(TCGETS2)", err)
	}
	setModes(m, termios)
	if t.Master() != nil {
		err = describeMaster(f, m)
	}
	if err == nil {
		err = describeSlave(t, m)
	}
	if err == nil && !t.Console {
		err = describeOwner(t, init, m)
	}
	return m, err
}

// open gives a descriptor of the master, if the container has it, or else of
// the slave. Of one that nobody has open (it controls a session) the slave is
// opened for the moment.
func open(t *target.Terminal, init procfs.Task) (fd int, done func(), err error) {
	e := t.Master()
	if e == nil {
		e = t.Slave()
	}
	if e != nil {
		f, err := e.Open()
		if err != nil {
			return -1, nil, err
		}
		return int(f.Fd()), func() { f.Close() }, nil
	}
	path := target.RootPath(init.Pid(), target.SlavePath(t.Index))
	fd, err = unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, func() { unix.Close(fd) }, nil
}

// describeMaster reads what only the master tells.
func describeMaster(fd int, m *state.Terminal) error {
	for _, q := range []struct {
		request uint
		to      *bool
	}{{tiocGPTLCK, &m.Locked}, {tiocGPKT, &m.Packet}} {
		n, err := unix.IoctlGetInt(fd, q.request)
		if err != nil {
			return fmt.Errorf("ioctl %#x: %w", q.request, err)
		}
		*q.to = n != 0
	}
	pfd := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(pfd, 0); err != nil {
		return os.NewSyscallError("poll", err)
	}
	m.SlaveClosed = pfd[0].Revents&unix.POLLHUP != 0
	return nil
}

// describeSlave reads what only the slave tells.
func describeSlave(t *target.Terminal, m *state.Terminal) error {
	e := t.Slave()
	if e == nil {
		return nil
	}
	f, err := e.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGETD)
	if err != nil {
		return os.NewSyscallError("ioctl(TIOCGETD)", err)
	}
	if n != disciplineTTY {
		return &refusal{fmt.Sprintf("terminal pts/%d", t.Index), fmt.Sprintf("it has line discipline %d, whose state is in the kernel's driver for it", n), "end the program that uses the terminal as a network device"}
	}
	n, err = unix.IoctlGetInt(int(f.Fd()), tiocGEXCL)
	m.Exclusive = n != 0
	return os.NewSyscallError("ioctl(TIOCGEXCL)", err)
}

// describeOwner reads owner and permissions of the slave's inode.
func describeOwner(t *target.Terminal, init procfs.Task, m *state.Terminal) error {
	var st unix.Stat_t
	err := target.Lstat(init.Pid(), target.SlavePath(t.Index), &st)
	if err != nil {
		return err
	}
	m.Mode = st.Mode & 0o777
	m.Uid, m.Gid, err = target.Owner(init, &st)
	return err
}

func setModes(m *state.Terminal, t *unix.Termios) {
	m.InputModes, m.OutputModes, m.ControlModes, m.LocalModes = t.Iflag, t.Oflag, t.Cflag, t.Lflag
	m.ControlCharacters = t.Cc[:]
	m.InputSpeed, m.OutputSpeed = t.Ispeed, t.Ospeed
}

// describeEnd makes the message of an open file description.
func describeEnd(t *target.Terminal, e *target.TerminalEnd) *state.TerminalEnd {
	m := &state.TerminalEnd{Index: uint32(t.Index), Side: state.TerminalSide_TERMINAL_SIDE_SLAVE, Path: target.SlavePath(t.Index)}
	m.Flags = uint32(e.Descriptor.Flags & endFlags)
	switch {
	case e.Master:
		m.Side, m.Path = state.TerminalSide_TERMINAL_SIDE_MASTER, ""
	case e.Controlling && !t.HungUp:
		m.Side, m.Path = state.TerminalSide_TERMINAL_SIDE_CONTROLLING, controllingPath
	case e.Descriptor.Link.Path == consolePath:
		m.Path = consolePath
	}
	return m
}

const (
	controllingPath = "/dev/tty"
	consolePath     = "/dev/console"
)

// endFlags are those that a description of a terminal can have.
const endFlags = unix.O_ACCMODE | target.StatusFlags

// looksGone: a process ended, or closed its descriptor, while it was looked at.
func looksGone(err error) bool {
	return procfs.IsGone(err) || errors.Is(err, unix.EBADF) || errors.Is(err, unix.EIO)
}
