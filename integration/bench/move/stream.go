// SPDX-License-Identifier: Apache-2.0

package move

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// streamPiece is what one write of the bare stream has.
const streamPiece = 512 << 10

// Stream sends so many bytes over one bare TCP connection on the path that a
// move takes, and returns how long it took until the last one was received:
// what the bridge gives at best.
func (w *World) Stream(ctx context.Context, bytes int64) (time.Duration, error) {
	var l net.Listener
	var out net.Conn
	err := inNetwork(w.To.Host.Pid(), func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", w.To.IP+":0")
		return err
	})
	if err != nil {
		return 0, err
	}
	defer l.Close()
	err = inNetwork(w.From.Host.Pid(), func() (err error) {
		out, err = new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		return err
	})
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { l.Close(); out.Close() })()
	received := make(chan error, 1)
	go func() { received <- receive(l, bytes) }()
	started := time.Now()
	err = send(out, bytes)
	err = errors.Join(err, out.Close(), <-received)
	return time.Since(started), err
}

func send(out net.Conn, bytes int64) error {
	piece := make([]byte, streamPiece)
	for i := range piece {
		piece[i] = byte(i*7 + i>>8) // touched, and not zero
	}
	for bytes > 0 {
		n, err := out.Write(piece[:min(bytes, streamPiece)])
		if err != nil {
			return err
		}
		bytes -= int64(n)
	}
	return nil
}

func receive(l net.Listener, bytes int64) error {
	in, err := l.Accept()
	if err != nil {
		return err
	}
	defer in.Close()
	buf := make([]byte, streamPiece)
	for bytes > 0 {
		n, err := in.Read(buf)
		bytes -= int64(n)
		if errors.Is(err, io.EOF) && bytes > 0 {
			return io.ErrUnexpectedEOF
		}
		if err != nil && bytes > 0 {
			return err
		}
	}
	return nil
}

// inNetwork calls f in the network namespace of a process. A socket stays in the
// namespace that it was made in, whoever uses it.
func inNetwork(pid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is not unlocked: it ends with the goroutine, and nobody
		// else gets one that is elsewhere.
		runtime.LockOSThread()
		done <- func() error {
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter the network of %d: %w", pid, err)
			}
			return f()
		}()
	}()
	return <-done
}
