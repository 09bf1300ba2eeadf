// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// consolePair is the socket that libcontainer's init sends a new terminal's
// master through. It is nil where there is no terminal, or where the socket is
// the caller's.
type consolePair struct {
	ours, theirs *os.File
}

// setStdio gives the process its standard descriptors or its console socket.
func setStdio(lp *libcontainer.Process, s Stdio) (*consolePair, error) {
	switch {
	case !s.Terminal:
		// A nil *os.File must not become a non-nil interface.
		if s.Stdin != nil {
			lp.Stdin = s.Stdin
		}
		lp.Stdout, lp.Stderr = writer(s.Stdout), writer(s.Stderr)
		return nil, nil
	case s.ConsoleSocket != nil:
		lp.ConsoleSocket = s.ConsoleSocket
		return nil, nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	c := &consolePair{os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console")}
	lp.ConsoleSocket = c.theirs
	return c, nil
}

func writer(f *os.File) io.Writer {
	if f == nil {
		return nil
	}
	return f
}

// receive takes the master. libcontainer's init sends it before it reports
// itself ready, so it is here already once the start has succeeded.
func (c *consolePair) receive() (*os.File, error) {
	if c == nil {
		return nil, nil
	}
	// libcontainer sends the terminal's name along; oob has room for one descriptor.
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(int(c.ours.Fd()), name, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("console: receive the terminal: %w", err)
	}
	fd, err := oneFD(oob[:oobn])
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	// Non-blocking, so that os.File uses the poller and Close ends a Read.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("console: %w", err)
	}
	return os.NewFile(uintptr(fd), string(name[:n])), nil
}

func oneFD(oob []byte) (int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, err
	}
	if len(msgs) != 1 {
		return -1, fmt.Errorf("got %d control messages, not the terminal", len(msgs))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return -1, err
	}
	if len(fds) != 1 {
		return -1, errors.New("got no descriptor")
	}
	return fds[0], nil
}

func (c *consolePair) closeSockets() {
	if c != nil {
		c.ours.Close()
		c.theirs.Close()
	}
}
