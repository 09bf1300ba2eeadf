// SPDX-License-Identifier: Apache-2.0

package incoming

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/io-mig/mig/spec/wire"
)

const socketSuffix = ".sock"

// Acceptor takes connections in and hands them on.
type Acceptor struct {
	opts Options
	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup

	mu sync.Mutex
	// Below: guarded by mu.
	closed    bool
	listeners map[net.Listener]bool
	unknown   *list.List // of net.Conn: no preamble yet, the oldest first
	handled   int
	byToken   map[wire.Token]*expected
}

// New makes an acceptor. Close it.
func New(o Options) (*Acceptor, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("sockets of incoming moves: %w", err)
	}
	old, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("sockets of incoming moves: %w", err)
	}
	for _, e := range old {
		if token, ok := strings.CutSuffix(e.Name(), socketSuffix); ok && isToken(token) {
			_ = os.Remove(filepath.Join(o.Dir, e.Name()))
		}
	}
	a := &Acceptor{
		opts: o.withDefaults(), listeners: map[net.Listener]bool{}, unknown: list.New(), byToken: map[wire.Token]*expected{},
	}
	a.ctx, a.stop = context.WithCancel(context.Background())
	return a, nil
}

func isToken(s string) bool {
	_, err := wire.ParseToken(s)
	return err == nil
}

// enter counts one goroutine that Close waits for.
func (a *Acceptor) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.work.Add(1)
	return true
}

// Serve accepts from l, a TCP listener, until Close or until l fails. It closes
// l. The error is ErrClosed after Close.
func (a *Acceptor) Serve(l net.Listener) error {
	a.mu.Lock()
	closed := a.closed
	a.listeners[l] = true
	a.mu.Unlock()
	defer l.Close()
	if closed {
		return ErrClosed
	}
	for pause := time.Duration(0); ; {
		conn, err := l.Accept()
		if err == nil {
			pause = 0
			a.take(conn)
			continue
		}
		if a.ctx.Err() != nil {
			return ErrClosed
		}
		if !passing(err) {
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		// Out of descriptors, or a connection that was gone before it was taken.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		a.opts.Warn(fmt.Errorf("accept on %s, again in %s: %w", l.Addr(), pause, err))
		select {
		case <-time.After(pause):
		case <-a.ctx.Done():
			return ErrClosed
		}
	}
}

// passing tells errors that concern one connection or one moment from those
// that end the listener.
func passing(err error) bool { return !errors.Is(err, net.ErrClosed) }

// take reads the preamble of a new connection, in a goroutine.
func (a *Acceptor) take(conn net.Conn) {
	if !a.enter() {
		conn.Close()
		return
	}
	a.mu.Lock()
	var oldest net.Conn
	if a.unknown.Len() >= a.opts.MaxUnknown {
		oldest = a.unknown.Remove(a.unknown.Front()).(net.Conn)
	}
	place := a.unknown.PushBack(conn)
	a.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
	go func() {
		defer a.work.Done()
		p, err := a.preamble(conn)
		a.mu.Lock()
		a.unknown.Remove(place) // nothing if it was removed to make room
		a.mu.Unlock()
		if err == nil {
			err = a.route(conn, p)
		}
		if err != nil {
			conn.Close()
			a.opts.Warn(fmt.Errorf("connection from %s: %w", conn.RemoteAddr(), err))
		}
	}()
}

func (a *Acceptor) preamble(conn net.Conn) (wire.Preamble, error) {
	if err := conn.SetReadDeadline(time.Now().Add(a.opts.PreambleTimeout)); err != nil {
		return wire.Preamble{}, err
	}
	p, err := wire.ReadPreamble(conn)
	if err != nil {
		return p, err
	}
	return p, conn.SetReadDeadline(time.Time{})
}

// route hands a connection on. After an error it is the caller's.
func (a *Acceptor) route(conn net.Conn, p wire.Preamble) error {
	if p.Purpose == wire.Control || p.Purpose == wire.Resolve {
		return a.handle(conn, p)
	}
	a.mu.Lock()
	e := a.byToken[p.Token]
	a.mu.Unlock()
	if e == nil {
		return fmt.Errorf("%s connection of move %s: nobody expects that move here", p.Purpose, p.Token)
	}
	return e.queue(conn, p)
}

func (a *Acceptor) handle(conn net.Conn, p wire.Preamble) error {
	a.mu.Lock()
	full := a.handled >= a.opts.MaxHandled
	if !full {
		a.handled++
	}
	a.mu.Unlock()
	if full {
		return fmt.Errorf("%s connection: %w at one time, %d", p.Purpose, ErrTooMany, a.opts.MaxHandled)
	}
	defer func() {
		a.mu.Lock()
		a.handled--
		a.mu.Unlock()
		conn.Close()
	}()
	if a.opts.Handle != nil {
		a.opts.Handle(a.ctx, conn, p)
	}
	return nil
}

// Close ends everything and waits for it: listeners, connections that nobody
// has taken yet, tokens, and the calls of Handle.
func (a *Acceptor) Close() error {
	a.mu.Lock()
	first := !a.closed
	a.closed = true
	var tokens []*expected
	if first {
		a.stop()
		for l := range a.listeners {
			l.Close()
		}
		for c := a.unknown.Front(); c != nil; c = c.Next() {
			c.Value.(net.Conn).Close()
		}
		for _, e := range a.byToken {
			tokens = append(tokens, e)
		}
	}
	a.mu.Unlock()
	for _, e := range tokens {
		e.forget()
	}
	a.work.Wait()
	return nil
}
