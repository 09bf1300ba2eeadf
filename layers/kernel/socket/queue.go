// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/state"
)

const (
	// queuePart is about what one record holds.
	queuePart  = 1 << 20
	queueShift = 16
)

// readable: there may be a message of no bytes.
func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLIN != 0
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

// queued is the size of a part in bytes.
func queued(q *state.SocketQueue) int {
	n := len(q.Stream)
	for _, m := range q.Message {
		n += len(m)
	}
	return n
}
