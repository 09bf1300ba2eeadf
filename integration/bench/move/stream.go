// SPDX-License-Identifier: Apache-2.0

package move

import (
	"bytes"
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
// what the bridge gives at best. Both sides use one small buffer again and again,
// which stays in the processor's cache.
func (w *World) Stream(ctx context.Context, size int64) (time.Duration, error) {
	return w.stream(ctx, func(out net.Conn) error { return send(out, size) }, func(in net.Conn) error { return receive(in, size) })
}

// MemoryStream is Stream from memory that is all there into memory that was just
// mapped, which is what a move has to do at least: it leaves out the seizing of
// either from another process, checksums, and whatever else is mig's. Like a move
// it has a connection for each processor, over TLS if t says so.
func (w *World) MemoryStream(ctx context.Context, size int64, t Transport) (took time.Duration, err error) {
	from, err := mapped(size, unix.MAP_POPULATE)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(from)) }()
	fill(from)
	to, err := mapped(size, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(to)) }()
	lanes := streamLanes()
	secure := func(c net.Conn, _ bool) net.Conn { return c }
	if t == TLS {
		if secure, err = securing(); err != nil {
			return 0, err
		}
	}
	part := (len(from)/lanes + streamPiece - 1) / streamPiece * streamPiece
	each := make(chan error, lanes)
	started := time.Now()
	for i := range lanes {
		begin, end := min(i*part, len(from)), min((i+1)*part, len(from))
		go func() {
			_, err := w.stream(ctx, func(out net.Conn) error { return sendAll(secure(out, true), from[begin:end]) },
				func(in net.Conn) error {
					_, err := io.ReadFull(secure(in, false), to[begin:end])
					return err
				})
			each <- err
		}()
	}
	for range lanes {
		err = errors.Join(err, <-each)
	}
	took = time.Since(started)
	if err == nil && !bytes.Equal(from, to) {
		err = errors.New("other bytes have come than were sent")
	}
	return took, err
}

// streamLanes are as many connections as mig makes by itself: one for each processor,
// up to four.
func streamLanes() int { return max(1, min(runtime.NumCPU(), 4)) }

// mapped is memory of its own, of 4 KiB pages as programs have it.
func mapped(size int64, flags int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|flags)
	if err != nil {
		return nil, fmt.Errorf("map %d MB: %w", size>>20, err)
	}
	return mem, nil
}

// stream makes a connection between the hosts and has both ends used. The connections
// are closed when both have returned, or at the end of ctx.
func (w *World) stream(ctx context.Context, send, receive func(net.Conn) error) (time.Duration, error) {
	var l net.Listener
	var out net.Conn
	err := w.To.InNetwork(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", w.To.IP+":0")
		return err
	})
	if err != nil {
		return 0, err
	}
	defer l.Close()
	if out, err = w.From.Dial(ctx, "tcp", l.Addr().String()); err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { l.Close(); out.Close() })()
	received := make(chan error, 1)
	go func() {
		in, err := l.Accept()
		if err == nil {
			err = receive(in)
			in.Close()
		}
		received <- err
	}()
	started := time.Now()
	err = send(out)
	err = errors.Join(err, out.Close(), <-received)
	return time.Since(started), err
}

func send(out net.Conn, size int64) error {
	piece := make([]byte, streamPiece)
	fill(piece)
	for size > 0 {
		n, err := out.Write(piece[:min(size, streamPiece)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// fill makes bytes that are not zero.
func fill(b []byte) {
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
}

func sendAll(out net.Conn, b []byte) error {
	for len(b) > 0 {
		n, err := out.Write(b[:min(len(b), streamPiece)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func receive(in net.Conn, size int64) error {
	buf := make([]byte, streamPiece)
	for size > 0 {
		n, err := in.Read(buf)
		size -= int64(n)
		if errors.Is(err, io.EOF) && size > 0 {
			return io.ErrUnexpectedEOF
		}
		if err != nil && size > 0 {
			return err
		}
	}
	return nil
}
