// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is unread in a terminal can only be had by reading it: no request of
// ioctl(2) looks at it. So it is read and put back at once, in modes in which
// nothing else happens to it, while everybody in the container is stopped.
//
// What the slave has been sent is put back by ioctl(TIOCSTI), which passes a
// byte to the line discipline before it returns (tiocsti of
// drivers/tty/tty_io.c): a write to the master would be passed on later, by a
// kernel thread, in whatever modes the terminal has by then. It needs
// CAP_SYS_ADMIN for the terminal of somebody else.

// openPeer opens the slave of a master, which does not block.
func openPeer(master int) (int, error) {
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if e != 0 {
		return -1, os.NewSyscallError("ioctl(TIOCGPTPEER)", e)
	}
	return int(fd), nil
}

// errStopped: nothing can be written to the slave.
var errStopped = errors.New("the terminal's output is stopped (Ctrl-S), or its buffer is full")

// peek copies what is unread: the slave's input, and with a master the slave's
// output. slave is a description of its own, which does not block.
func peek(slave, master int) (input, output []byte, err error) {
	modes, err := unix.IoctlGetTermios(slave, unix.TCGETS2)
	if err != nil {
		return nil, nil, os.NewSyscallError("ioctl(TCGETS2)", err)
	}
	if modes.Lflag&unix.EXTPROC != 0 {
		return nil, nil, errors.New("the terminal is in external processing mode (EXTPROC)")
	}
	if master >= 0 {
		restore, err := leavePacketMode(master)
		if err != nil {
			return nil, nil, err
		}
		defer restore()
		if output, err = peekOutput(slave, master, modes); err != nil {
			return nil, nil, err
		}
	}
	input, err = peekInput(slave, modes)
	return input, output, err
}

// leavePacketMode makes reads of the master return data alone.
func leavePacketMode(master int) (restore func(), err error) {
	on, err := unix.IoctlGetInt(master, tiocGPKT)
	if err != nil {
		return nil, os.NewSyscallError("ioctl(TIOCGPKT)", err)
	}
	if on == 0 {
		return func() {}, nil
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCPKT, 0); err != nil {
		return nil, os.NewSyscallError("ioctl(TIOCPKT)", err)
	}
	return func() { _ = unix.IoctlSetPointerInt(master, unix.TIOCPKT, 1) }, nil
}

// peekOutput reads the master and writes the same to the slave again.
func peekOutput(slave, master int, modes *unix.Termios) ([]byte, error) {
	p := []unix.PollFd{{Fd: int32(slave), Events: unix.POLLOUT}}
	if _, err := unix.Poll(p, 0); err != nil || p[0].Revents&unix.POLLOUT == 0 {
		return nil, errors.Join(err, errStopped)
	}
	data, err := readAvailable(master)
	return data, errors.Join(err, putOutput(slave, data, modes))
}

// putOutput writes as if nothing were to be processed, and sets the modes again.
func putOutput(slave int, data []byte, modes *unix.Termios) error {
	if len(data) == 0 {
		return nil
	}
	plain := *modes
	plain.Oflag &^= unix.OPOST
	if err := unix.IoctlSetTermios(slave, unix.TCSETS2, &plain); err != nil {
		return os.NewSyscallError("ioctl(TCSETS2)", err)
	}
	return errors.Join(writeAll(slave, data), os.NewSyscallError("ioctl(TCSETS2)", unix.IoctlSetTermios(slave, unix.TCSETS2, modes)))
}

// peekInput reads the slave and gives it the same again.
func peekInput(slave int, modes *unix.Termios) ([]byte, error) {
	raw := *modes
	raw.Iflag, raw.Lflag = 0, 0
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	// Out of canonical mode also the line that is not complete can be read.
	if err := unix.IoctlSetTermios(slave, unix.TCSETS2, &raw); err != nil {
		return nil, os.NewSyscallError("ioctl(TCSETS2)", err)
	}
	data, err := readAvailable(slave)
	return data, errors.Join(err, putInput(slave, data, modes))
}

// putInput passes bytes to the line discipline in modes that only part them
// into lines, if the terminal does so, and then sets its modes.
func putInput(slave int, data []byte, modes *unix.Termios) error {
	quiet := quietModes(modes, data)
	err := unix.IoctlSetTermios(slave, unix.TCSETS2, &quiet)
	for _, b := range data {
		if b == 0 && quiet.Lflag&unix.ICANON != 0 {
			b = quiet.Cc[unix.VEOF] // which is kept as 0
		}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(slave), unix.TIOCSTI, uintptr(unsafe.Pointer(&b))); e != 0 && err == nil {
			err = os.NewSyscallError("ioctl(TIOCSTI)", e)
		}
	}
	return errors.Join(err, os.NewSyscallError("ioctl(TCSETS2)", unix.IoctlSetTermios(slave, unix.TCSETS2, modes)))
}

// quietModes keep canonical mode and what ends a line in it, and nothing else
// that would change, echo or obey a byte. The end of a file is told by a byte
// that is not in the data.
func quietModes(modes *unix.Termios, data []byte) unix.Termios {
	q := *modes
	q.Iflag, q.Lflag = 0, modes.Lflag&unix.ICANON
	if q.Lflag == 0 {
		return q
	}
	q.Cc = [19]byte{unix.VEOL: modes.Cc[unix.VEOL], unix.VEOL2: modes.Cc[unix.VEOL2]}
	for b := byte(255); b > 0; b-- {
		if b != q.Cc[unix.VEOL] && b != q.Cc[unix.VEOL2] && b != '\n' && bytes.IndexByte(data, b) < 0 {
			q.Cc[unix.VEOF] = b
			break
		}
	}
	return q
}

// readAvailable reads what is there without waiting for more. poll(2) has the
// kernel pass on what is still on its way (n_tty_poll).
func readAvailable(fd int) ([]byte, error) {
	var out []byte
	buf := make([]byte, 64<<10)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 0); err != nil && !errors.Is(err, unix.EINTR) {
			return out, os.NewSyscallError("poll", err)
		}
		if p[0].Revents&unix.POLLIN == 0 || len(out) > maxUnread {
			return out, nil
		}
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EIO):
			return out, nil
		case err != nil:
			return out, fmt.Errorf("read the terminal: %w", err)
		case n == 0: // an end of file in canonical mode does not come here
			return out, nil
		}
		out = append(out, buf[:max(n, 0)]...)
	}
}

// writeTime bounds a write to what has just been emptied.
const writeTime = 2 * time.Second

// writeAll writes without being held up for good.
func writeAll(fd int, data []byte) error {
	for end := time.Now().Add(writeTime); len(data) > 0; {
		n, err := unix.Write(fd, data)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if time.Now().After(end) {
				return fmt.Errorf("%d bytes of the terminal's output found no room: %w", len(data), err)
			}
			time.Sleep(time.Millisecond)
		case err != nil:
			return fmt.Errorf("write to the terminal: %w", err)
		default:
			data = data[n:]
		}
	}
	return nil
}
