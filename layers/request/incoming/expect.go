// SPDX-License-Identifier: Apache-2.0

package incoming

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/wire"
)

// expected is one token whose connections are wanted.
type expected struct {
	a     *Acceptor
	token wire.Token
	path  string
	sock  *net.UnixListener
	once  sync.Once
	gone  chan struct{} // closed by forget

	mu sync.Mutex
	// Below: guarded by mu.
	waiting []waiting
	engine  *net.UnixConn // the engine that is connected now
	wake    chan struct{} // has one element when waiting or engine changed
	ended   bool
}

type waiting struct {
	conn  net.Conn
	p     wire.Preamble
	since time.Time
}

// Expect opens the token's socket: connections that come with the token are
// kept for the engine that connects to path, also those that came before it. A
// later engine takes the place of an earlier one. forget ends that, removes the
// socket and closes what was not fetched; Close does it, too.
//
// Errors: ErrExpected, ErrTooMany, ErrClosed.
func (a *Acceptor) Expect(token wire.Token) (path string, forget func(), err error) {
	e := &expected{
		a: a, token: token, path: filepath.Join(a.opts.Dir, token.String()+socketSuffix),
		gone: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	a.mu.Lock()
	switch {
	case a.closed:
		err = ErrClosed
	case a.byToken[token] != nil:
		err = ErrExpected
	case len(a.byToken) >= a.opts.MaxExpected:
		err = fmt.Errorf("%w moves at one time, %d", ErrTooMany, a.opts.MaxExpected)
	default:
		_ = os.Remove(e.path)
		if e.sock, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: e.path}); err == nil {
			a.byToken[token] = e
			a.work.Add(2)
		}
	}
	a.mu.Unlock()
	if err != nil {
		return "", nil, fmt.Errorf("move %s: %w", token, err)
	}
	go func() { defer a.work.Done(); e.accept() }()
	go func() { defer a.work.Done(); e.deliver() }()
	return e.path, e.forget, nil
}

func (e *expected) forget() {
	e.once.Do(func() {
		e.a.mu.Lock()
		delete(e.a.byToken, e.token)
		e.a.mu.Unlock()
		e.mu.Lock()
		e.ended = true
		left, engine := e.waiting, e.engine
		e.waiting, e.engine = nil, nil
		e.mu.Unlock()
		close(e.gone)
		e.sock.Close() // removes the socket
		if engine != nil {
			engine.Close()
		}
		for _, w := range left {
			w.conn.Close()
		}
	})
}

// queue keeps a connection until the engine takes it.
func (e *expected) queue(conn net.Conn, p wire.Preamble) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return fmt.Errorf("move %s is over", e.token)
	}
	if len(e.waiting) >= e.a.opts.MaxQueued {
		return fmt.Errorf("move %s: %w connections wait for the engine, %d", e.token, ErrTooMany, len(e.waiting))
	}
	e.waiting = append(e.waiting, waiting{conn, p, time.Now()})
	e.signal()
	return nil
}

func (e *expected) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// accept takes the engine's connections to the socket.
func (e *expected) accept() {
	for {
		conn, err := e.sock.AcceptUnix()
		if err != nil {
			select {
			case <-e.gone:
				return
			case <-time.After(10 * time.Millisecond):
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		if err := ours(conn); err != nil {
			conn.Close()
			e.a.opts.Warn(fmt.Errorf("move %s: %w", e.token, err))
			continue
		}
		e.mu.Lock()
		old := e.engine
		if e.ended {
			old = conn
		} else {
			e.engine = conn
			e.signal()
		}
		e.mu.Unlock()
		if old != nil {
			old.Close()
		}
	}
}

// ours refuses an engine of another user.
func ours(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(cerr, err); err != nil {
		return err
	}
	if int(cred.Uid) != os.Getuid() {
		return fmt.Errorf("process %d of user %d asks for the connections", cred.Pid, cred.Uid)
	}
	return nil
}

// deliver hands connections to the engine and ends those that nobody fetches.
func (e *expected) deliver() {
	check := time.NewTicker(min(e.a.opts.FetchTimeout, time.Second))
	defer check.Stop()
	for {
		select {
		case <-e.gone:
			return
		case <-e.wake:
		case <-check.C:
			e.expire()
		}
		for e.deliverOne() {
		}
	}
}

func (e *expected) expire() {
	e.mu.Lock()
	defer e.mu.Unlock()
	kept := e.waiting[:0]
	for _, w := range e.waiting {
		if time.Since(w.since) < e.a.opts.FetchTimeout {
			kept = append(kept, w)
			continue
		}
		w.conn.Close()
		e.a.opts.Warn(fmt.Errorf("move %s: no engine took the %s connection of %s within %s", e.token, w.p.Purpose, w.conn.RemoteAddr(), e.a.opts.FetchTimeout))
	}
	e.waiting = kept
}

// deliverOne reports whether there may be more to deliver.
func (e *expected) deliverOne() bool {
	e.mu.Lock()
	engine := e.engine
	if engine == nil || len(e.waiting) == 0 {
		e.mu.Unlock()
		return false
	}
	w := e.waiting[0]
	e.waiting = e.waiting[1:]
	e.mu.Unlock()
	if err := pass(engine, w); err != nil {
		// The engine is gone; the next one may want the connection.
		engine.Close()
		e.mu.Lock()
		if e.engine == engine {
			e.engine = nil
		}
		ended := e.ended
		if !ended {
			e.waiting = append([]waiting{w}, e.waiting...)
		}
		e.mu.Unlock()
		if ended {
			w.conn.Close()
		}
		return !ended
	}
	w.conn.Close() // the engine has a descriptor of its own
	return true
}
