// SPDX-License-Identifier: Apache-2.0

// Package stream is the medium between two hosts: records over one or several
// connections, framed as spec/wire says. The caller brings the connections;
// TLS is theirs. It is the base of live migration.
//
// The importer grants a window and gives it back as records are released: a
// push waits for window before its first byte is sent, so a wait can be
// cancelled without breaking a frame, and the importer's memory is bounded. The
// exporter holds nothing but the frames that are just being written.
//
// Beside the records, commands go both ways (Peer), and an urgent connection
// serves what a running copy waits for (Puller, ServePulls).
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/wire"
)

// farewell bounds how long Close waits for the peer's Bye.
const farewell = 5 * time.Second

// Options of both ends. Its zero value is usable.
type Options struct {
	// Token of the move, which both ends must name.
	Token wire.Token
	// Compress is the exporter's policy. An importer takes either.
	Compress Compression
}

// core is what both ends share.
type core struct {
	opts  Options
	conns []net.Conn
	work  sync.WaitGroup
	talk  talk
	// live ends when the stream fails or is closed.
	live context.Context
	end  context.CancelCauseFunc

	mu sync.Mutex
	// changed is closed and replaced at every change that somebody may wait for.
	changed  chan struct{}
	manifest []byte
	err      error
	closed   bool
	// bye: the peer said Bye.
	bye bool
	// over is closed when nothing more can come from the peer.
	over     chan struct{}
	overOnce sync.Once
}

func (c *core) init(o Options, conns []net.Conn) error {
	if len(conns) < 1 || len(conns) > wire.MaxConnections {
		return fmt.Errorf("stream over %d connections: want 1 to %d", len(conns), wire.MaxConnections)
	}
	c.opts, c.conns, c.changed, c.over = o, conns, make(chan struct{}), make(chan struct{})
	c.live, c.end = context.WithCancelCause(context.Background())
	c.talk.init()
	return nil
}

func (c *core) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// finish is called when nothing more can come from the peer.
func (c *core) finish() { c.overOnce.Do(func() { close(c.over) }) }

// Over is closed when nothing more will come from the peer: it said Bye, or the
// stream is broken or closed.
func (c *core) Over() <-chan struct{} { return c.over }

// Err is what has broken the stream, nil while it is whole.
func (c *core) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail makes err final, with the lock not held. It ends every connection, so
// that nobody waits for this side.
func (c *core) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.broadcast()
		c.end(err)
		for _, conn := range c.conns {
			_ = conn.Close()
		}
	}
	c.finish()
	return c.err
}

// close ends the connections and waits for every goroutine.
func (c *core) close() {
	c.mu.Lock()
	c.closed = true
	c.broadcast()
	c.mu.Unlock()
	c.end(medium.ErrClosed)
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.finish()
	c.work.Wait()
}

// wait sleeps until ready, called with the lock held, says so, the stream
// fails or ctx ends. The lock is held before and after.
func (c *core) wait(ctx context.Context, ready func() bool) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if ready() {
			return nil
		}
		if c.closed {
			return medium.ErrClosed
		}
		if c.err != nil {
			return c.err
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		c.mu.Lock()
	}
}

// readFrame reads a frame's header. io.EOF means the end between two frames.
func readFrame(r io.Reader) (wire.Type, int, error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, err
	}
	return wire.DecodeHeader(head[:])
}

// readBody reads what follows a header. It allocates as it reads, so that a
// length alone makes nobody hold memory.
func readBody(r io.Reader, n int) ([]byte, error) {
	const step = 64 << 10
	b := make([]byte, 0, min(n, step))
	for len(b) < n {
		more := min(n-len(b), step)
		b = append(b, make([]byte, more)...)
		if _, err := io.ReadFull(r, b[len(b)-more:]); err != nil {
			return nil, unexpected(err)
		}
	}
	return b, nil
}

// writeCut writes to a connection so that the end of ctx cuts the write short,
// after which the connection is of no use.
func writeCut(ctx context.Context, conn net.Conn, parts ...[]byte) error {
	err := cutBy(ctx, conn.SetWriteDeadline, func() error { return writeCorked(conn, parts) })
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// cutBy calls fn and has the end of ctx cut it short by a deadline in the past.
func cutBy(ctx context.Context, setDeadline func(time.Time) error, fn func() error) error {
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = setDeadline(time.Unix(1, 0))
	})
	err := fn()
	if stop() {
		return err
	}
	<-cut
	if err == nil {
		err = setDeadline(time.Time{}) // it ended too late to matter
	}
	return err
}

// corker is a connection beneath TLS that can hold back what is written until
// there is enough of it to send.
type corker interface {
	Cork()
	Uncork() error
}

// writeCorked writes parts in as few packets as possible.
func writeCorked(conn net.Conn, parts net.Buffers) error {
	var beneath corker
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok { // a tls.Conn
		beneath, _ = over.NetConn().(corker)
	}
	if beneath == nil {
		_, err := parts.WriteTo(conn)
		return err
	}
	beneath.Cork()
	_, err := parts.WriteTo(conn)
	return errors.Join(err, beneath.Uncork())
}
