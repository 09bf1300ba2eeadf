// SPDX-License-Identifier: Apache-2.0

// Package stream is the medium between two hosts: records over one or several
// connections, framed as spec/wire says. The caller brings the connections;
// TLS is theirs. It is the base of live migration.
//
// The importer grants a window and gives it back as records are released: a
// push waits for window before its first byte is sent, so a wait can be
// cancelled without breaking a frame, and the importer's memory is bounded.
package stream

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// farewell bounds how long Close waits for the peer's Bye.
const farewell = 5 * time.Second

// core is what both ends share.
type core struct {
	conns []net.Conn
	work  sync.WaitGroup

	mu sync.Mutex
	// changed is closed and replaced at every change that somebody may wait for.
	changed  chan struct{}
	manifest []byte
	err      error
	closed   bool
	// bye: the peer said Bye.
	bye bool
}

func (c *core) init(conns []net.Conn) error {
	if len(conns) < 1 || len(conns) > wire.MaxConnections {
		return fmt.Errorf("stream over %d connections: want 1 to %d", len(conns), wire.MaxConnections)
	}
	c.conns, c.changed = conns, make(chan struct{})
	return nil
}

func (c *core) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// fail makes err final, with the lock not held. It ends every connection, so
// that nobody waits for this side.
func (c *core) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.broadcast()
		for _, conn := range c.conns {
			_ = conn.Close()
		}
	}
	return c.err
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

// unsupported answers a command that a stream does not know.
func unsupported(c record.Command) (record.Command, error) {
	return record.Command{}, medium.Unsupported("stream", c)
}
