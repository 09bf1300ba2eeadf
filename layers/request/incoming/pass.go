// SPDX-License-Identifier: Apache-2.0

package incoming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/wire"
)

// passTimeout bounds how long an engine may leave its socket full.
const passTimeout = 5 * time.Second

// pass sends the preamble and the connection's descriptor.
func pass(to *net.UnixConn, w waiting) error {
	sc, ok := w.conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a connection of type %T has no descriptor", w.conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	if err := to.SetWriteDeadline(time.Now().Add(passTimeout)); err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, _, sent = to.WriteMsgUnix(w.p.Append(nil), unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sent)
}

// Waiter is the engine's side: it receives the connections of one token.
type Waiter struct {
	sock *net.UnixConn
}

// Dial connects to the socket that Expect has named. Close the Waiter.
func Dial(ctx context.Context, path string) (*Waiter, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("the socket of an incoming move: %w: does migd run?", err)
	}
	return &Waiter{sock: conn.(*net.UnixConn)}, nil
}

// Accept returns the next connection and what its preamble said. The connection
// is the caller's, before TLS. io.EOF means that the acceptor ended or that
// another engine took this one's place. Calls must not overlap. The end of ctx
// ends the Waiter, too.
func (w *Waiter) Accept(ctx context.Context) (net.Conn, wire.Preamble, error) {
	stop := context.AfterFunc(ctx, func() { w.sock.Close() })
	defer stop()
	conn, p, err := w.receive()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return conn, p, err
}

func (w *Waiter) receive() (net.Conn, wire.Preamble, error) {
	var b [wire.PreambleSize]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := w.sock.ReadMsgUnix(b[:], oob)
	files := rights(oob[:oobn])
	defer func() {
		for _, f := range files {
			f.Close() // net.FileConn duplicates
		}
	}()
	switch {
	case err != nil:
		return nil, wire.Preamble{}, fmt.Errorf("receive a connection: %w", err)
	case n == 0:
		return nil, wire.Preamble{}, io.EOF
	case flags&unix.MSG_CTRUNC != 0 || len(files) != 1:
		return nil, wire.Preamble{}, fmt.Errorf("%d descriptors came with a preamble", len(files))
	}
	if n < len(b) {
		if _, err := io.ReadFull(w.sock, b[n:]); err != nil {
			return nil, wire.Preamble{}, fmt.Errorf("receive a connection: %w", err)
		}
	}
	p, err := wire.DecodePreamble(b[:])
	if err != nil {
		return nil, p, err
	}
	conn, err := net.FileConn(files[0])
	if err != nil {
		return nil, p, fmt.Errorf("a passed descriptor: %w", err)
	}
	return conn, p, nil
}

func rights(oob []byte) (files []*os.File) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed connection"))
		}
	}
	return files
}

// Close ends an Accept that waits.
func (w *Waiter) Close() error { return w.sock.Close() }
