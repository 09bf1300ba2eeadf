// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

const (
	// queuePart is what one record holds at most.
	queuePart = 1 << 20
	// longestMessage that is looked for: what wmem_max allows by far.
	longestMessage = 2 << 20
	queueShift     = 16
)

// peek copies what a unix socket has received without taking it.
//
// A stream is copied by one recv(MSG_PEEK), which has no effect on the socket.
// Messages behind the first one can only be seen by means of SO_PEEK_OFF, which
// is set for the moment: it means nothing to a program that does not peek.
func peek(fd, typ int) ([]*state.SocketQueue, error) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return nil, os.NewSyscallError("ioctl(SIOCINQ)", err)
	}
	if typ == unix.SOCK_STREAM {
		return peekStream(fd, n)
	}
	if n == 0 && !readable(fd) {
		return nil, nil
	}
	return peekMessages(fd)
}

// readable: there may be a message of no bytes.
func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLIN != 0
}

func peekStream(fd, n int) ([]*state.SocketQueue, error) {
	if n == 0 {
		return nil, nil
	}
	// A program that peeks itself may have come some way: see SO_PEEK_OFF.
	back, err := peekFrom(fd, 0)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, n)
	got, _, err := unix.Recvfrom(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err := errors.Join(os.NewSyscallError("recv(MSG_PEEK)", err), back()); err != nil {
		return nil, err
	}
	if got != n {
		return nil, &refusal{"unix socket", fmt.Sprintf("%d of %d unread bytes cannot be seen: they were sent with credentials or out of band", n-got, n), "try again when the program has read them"}
	}
	return split(buf), nil
}

// split makes parts of a stream.
func split(buf []byte) (parts []*state.SocketQueue) {
	for len(buf) > 0 {
		part := buf[:min(len(buf), queuePart)]
		parts = append(parts, &state.SocketQueue{Stream: part})
		buf = buf[len(part):]
	}
	return parts
}

// peekFrom sets SO_PEEK_OFF; back sets what it was. An engine that dies between
// leaves it set, which means nothing to a program that does not peek.
func peekFrom(fd, offset int) (back func() error, err error) {
	was, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, soPeekOff)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, soPeekOff, offset)
	}
	if err != nil {
		return nil, os.NewSyscallError("setsockopt(SO_PEEK_OFF)", err)
	}
	return func() error {
		return os.NewSyscallError("setsockopt(SO_PEEK_OFF)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, soPeekOff, was))
	}, nil
}

func peekMessages(fd int) (parts []*state.SocketQueue, err error) {
	back, err := peekFrom(fd, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, back()) }()
	buf := make([]byte, longestMessage)
	open, size := &state.SocketQueue{}, 0
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if errors.Is(err, unix.EAGAIN) || err == nil && n == 0 {
			break // nothing more, or the end of a closed connection
		}
		if err != nil {
			return nil, os.NewSyscallError("recv(MSG_PEEK)", err)
		}
		if n > len(buf) {
			return nil, fmt.Errorf("a message of %d bytes is longer than the limit of %d", n, len(buf))
		}
		open.Message = append(open.Message, append([]byte(nil), buf[:n]...))
		if size += n + 64; size >= queuePart {
			parts, open, size = append(parts, open), &state.SocketQueue{}, 0
		}
	}
	if len(open.Message) > 0 {
		parts = append(parts, open)
	}
	return parts, nil
}

// queued is the size of a part in bytes.
func queued(q *state.SocketQueue) int {
	n := len(q.Stream)
	for _, m := range q.Message {
		n += len(m)
	}
	return n
}
