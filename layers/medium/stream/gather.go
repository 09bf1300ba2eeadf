// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/io-mig/mig/spec/wire"
)

// ReadGreeting reads the Hello of a connection.
func ReadGreeting(conn net.Conn) (wire.Greeting, error) {
	t, n, err := readFrame(conn)
	if err != nil {
		return wire.Greeting{}, err
	}
	if t != wire.Hello {
		return wire.Greeting{}, fmt.Errorf("%w: frame %d where a hello belongs", wire.ErrProtocol, t)
	}
	body, err := readBody(conn, n)
	if err != nil {
		return wire.Greeting{}, err
	}
	return wire.DecodeHello(body)
}

// Gatherer turns the connections that come for one move into its stream. What a
// stranger brings is closed and reported, and never ends the move: only a peer
// that has passed Secure and names the token counts.
type Gatherer struct {
	// Token of the move.
	Token wire.Token
	// Secure authenticates a new connection, for example by TLS. It may take
	// until the connection's deadline.
	Secure func(ctx context.Context, conn net.Conn) (net.Conn, error)
	// Timeout bounds Secure and the Hello together; 0 means 10 s.
	Timeout time.Duration
	// Urgent takes the urgent connections, at any time. nil closes them.
	Urgent func(net.Conn)
	// Warn is told of what was closed. May be nil.
	Warn func(error)

	mu sync.Mutex
	// Below: guarded by mu.
	count     int
	conns     []net.Conn
	greetings []wire.Greeting
	taken     bool
	complete  chan struct{}
	once      sync.Once
	pending   int
	// cut is why no more connections come, nil as long as they may.
	cut error
}

// maxPending bounds the connections that are being secured.
const maxPending = wire.MaxConnections + 8

func (g *Gatherer) warn(conn net.Conn, err error) {
	_ = conn.Close()
	if g.Warn != nil {
		g.Warn(fmt.Errorf("connection from %s for move %s: %w", conn.RemoteAddr(), g.Token, err))
	}
}

func (g *Gatherer) done() chan struct{} {
	g.once.Do(func() { g.complete = make(chan struct{}) })
	return g.complete
}

// Add takes a new connection, which is the Gatherer's, and returns at once.
func (g *Gatherer) Add(ctx context.Context, conn net.Conn) {
	g.mu.Lock()
	full := g.pending >= maxPending
	if !full {
		g.pending++
	}
	g.mu.Unlock()
	if full {
		g.warn(conn, errors.New("too many are being secured"))
		return
	}
	go func() {
		err := g.greet(ctx, conn)
		g.mu.Lock()
		g.pending--
		g.endIfCut()
		g.mu.Unlock()
		if err != nil {
			g.warn(conn, err)
		}
	}()
}

// Cut says that no more connections come, because of err. A Stream that waits for
// some fails when those that are being secured do not complete it. A stream that
// is complete, and urgent connections, are not concerned.
func (g *Gatherer) Cut(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cut == nil {
		g.cut = err
	}
	g.endIfCut()
}

// endIfCut needs the lock.
func (g *Gatherer) endIfCut() {
	if g.cut != nil && g.pending == 0 && !g.taken {
		g.taken = true
		close(g.done())
	}
}

func (g *Gatherer) greet(ctx context.Context, bare net.Conn) error {
	timeout := g.Timeout
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = bare.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := bare
	if g.Secure != nil {
		var err error
		if conn, err = g.Secure(ctx, bare); err != nil {
			return err
		}
	}
	hello, err := ReadGreeting(conn)
	switch {
	case err != nil:
		return err
	case !stop():
		return context.Cause(ctx)
	case hello.Token != g.Token:
		return fmt.Errorf("%w: it says that it belongs to move %s", wire.ErrProtocol, hello.Token)
	case hello.Purpose == wire.Urgent && g.Urgent == nil:
		return fmt.Errorf("%w: nobody here takes urgent connections", wire.ErrProtocol)
	case hello.Purpose == wire.Urgent:
		g.Urgent(conn)
		return nil
	case hello.Purpose != wire.Data:
		return fmt.Errorf("%w: a %s connection", wire.ErrProtocol, hello.Purpose)
	}
	return g.take(conn, hello)
}

// take keeps a data connection that fits those that are there.
func (g *Gatherer) take(conn net.Conn, hello wire.Greeting) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.taken || g.count != 0 && g.count != hello.Count {
		return fmt.Errorf("%w: connection %d of %d, the stream has %d", wire.ErrProtocol, hello.Index, hello.Count, g.count)
	}
	for _, other := range g.greetings {
		if other.Index == hello.Index {
			return fmt.Errorf("%w: connection %d came twice", wire.ErrProtocol, hello.Index)
		}
	}
	g.count = hello.Count
	g.conns, g.greetings = append(g.conns, conn), append(g.greetings, hello)
	if len(g.conns) == g.count {
		g.taken = true
		close(g.done())
	}
	return nil
}

// Stream waits until all connections are there. After an error those that are
// there are closed.
func (g *Gatherer) Stream(ctx context.Context) (*Reader, error) {
	select {
	case <-g.done():
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.taken = true
	complete := g.count > 0 && len(g.conns) == g.count
	g.mu.Unlock()
	if complete {
		return NewGreetedReader(Options{Token: g.Token}, g.conns, g.greetings)
	}
	for _, c := range g.conns {
		_ = c.Close()
	}
	why := context.Cause(ctx)
	if why == nil {
		why = g.cut
	}
	return nil, fmt.Errorf("%d of %d connections of the move have come: %w", len(g.conns), g.count, why)
}
