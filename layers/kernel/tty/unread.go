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

// unread counts the bytes that the kernel holds for the readers of a terminal:
// in canonical mode only those of whole lines. What the runtime has not read yet
// of the container's own is not lost.
func unread(t *target.Terminal) (int, error) {
	total := 0
	for _, e := range []*target.TerminalEnd{t.Master(), t.Slave()} {
		if e == nil {
			continue
		}
		f, err := e.Open()
		if err != nil {
			return 0, err
		}
		n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
		f.Close()
		if err != nil {
			return 0, os.NewSyscallError("ioctl(FIONREAD)", err)
		}
		total += n
	}
	return total, nil
}

// lost says why what is unread cannot be carried, "" if it can.
func lost(t *target.Terminal, m *state.Terminal) string {
	e := t.Slave()
	switch {
	case m.LocalModes&unix.EXTPROC != 0:
		return "it is in external processing mode (EXTPROC)"
	case m.Locked || e == nil:
		return "nobody has its slave open"
	}
	f, err := e.Open()
	if err != nil {
		return "" // closed meanwhile
	}
	defer f.Close()
	p := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLOUT}}
	if _, err := unix.Poll(p, 0); err == nil && p[0].Revents&unix.POLLOUT == 0 && t.Master() != nil {
		return errStopped.Error()
	}
	return ""
}

// copyUnread adds what is unread, where anything is.
func copyUnread(t *target.Terminal, init procfs.Task, m *state.Terminal) error {
	n, err := unread(t)
	if err != nil || n == 0 || lost(t, m) != "" {
		return err
	}
	path := target.RootPath(init.Pid(), target.SlavePath(t.Index))
	slave, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(slave)
	master := -1
	if e := t.Master(); e != nil {
		f, err := e.Open()
		if err != nil {
			return err
		}
		defer f.Close()
		master = int(f.Fd())
	}
	a, err := peekByHelper(slave, master)
	if err != nil || a.Stopped {
		return err
	}
	if a.Error != "" {
		return fmt.Errorf("copy what is unread: %s", a.Error)
	}
	m.Input, m.Output = a.Input, a.Output
	return nil
}

// fill puts what is unread into a terminal whose modes are set. The engine does
// it: the frame may have no right to.
func fill(first *target.Task, m *target.MadeTerminal, msg *state.Terminal) error {
	if len(msg.Input)+len(msg.Output) == 0 {
		return nil
	}
	from := m.Master
	if m.Console {
		from = first.Stdio[0]
	}
	f, err := first.OpenDescriptor(from)
	if err != nil {
		return err
	}
	defer f.Close()
	slave := int(f.Fd())
	if !m.Console {
		if slave, err = openPeer(int(f.Fd())); err != nil {
			return err
		}
		defer unix.Close(slave)
	}
	modes, err := unix.IoctlGetTermios(slave, unix.TCGETS2)
	if err != nil {
		return os.NewSyscallError("ioctl(TCGETS2)", err)
	}
	if m.Console && len(msg.Output) > 0 {
		return errors.New("output of the container's own terminal, which its client has")
	}
	return errors.Join(putOutput(slave, msg.Output, modes), putInput(slave, msg.Input, modes))
}
