// SPDX-License-Identifier: Apache-2.0

package agenthost

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/agent"
)

// Limits of what a container may make the shim hold.
const (
	maxConns    = 64
	maxOutcomes = 16
)

// Options of a Server.
type Options struct {
	// Dir is the directory that the container has mounted, made by New and
	// removed by Close. It is the server's.
	Dir string
	// Restored: the container is a copy.
	Restored bool
	// Checkpoint and Migrate begin what an application asks for, or say why not.
	// They must not wait for its end. nil: not allowed.
	// They call failed at most once, if what has begun fails.
	Checkpoint func(exit bool, failed func(error)) error
	Migrate    func(host string, failed func(error)) error
}

// Server is the agent of one container. Its methods may be called from any
// goroutine; events come one at a time.
type Server struct {
	opts       Options
	generation string

	mu sync.Mutex
	// Below: guarded by mu.
	listener *net.UnixListener // nil while the container's state is taken
	conns    map[*client]bool
	event    string         // under way
	away     map[string]int // applications by the event that they have answered and whose outcome they have not asked for
	outcomes []outcome      // of the last events
	failures int            // how many events have failed
	changed  chan struct{}  // closed and replaced when one of these changes
	closed   bool
	wg       sync.WaitGroup
}

type outcome struct{ event, reason string }

// New makes the directory and listens.
func New(o Options) (*Server, error) {
	id := make([]byte, 16)
	rand.Read(id) // never fails (crypto/rand)
	s := &Server{opts: o, generation: hex.EncodeToString(id), conns: map[*client]bool{}, away: map[string]int{}, changed: make(chan struct{})}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	// Whoever the container runs as may connect.
	if err := os.Chmod(o.Dir, 0o755); err != nil {
		return nil, errors.Join(fmt.Errorf("agent: %w", err), os.RemoveAll(o.Dir))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.listen(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(o.Dir))
	}
	return s, nil
}

// listen makes the socket. s.mu is held.
func (s *Server) listen() error {
	dir, err := os.Open(s.opts.Dir)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer dir.Close()
	// A bundle's path may be longer than a socket's name can be (unix(7)).
	name := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), agent.Socket)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("agent: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	l.SetUnlinkOnClose(false) // by a name that is another directory's by then
	if err := os.Chmod(name, 0o666); err != nil {
		return errors.Join(fmt.Errorf("agent: %w", err), l.Close())
	}
	s.listener = l
	s.wg.Add(1)
	go s.accept(l)
	return nil
}

// silence closes the socket: who is not connected cannot connect. s.mu is held.
func (s *Server) silence() {
	if s.listener == nil {
		return
	}
	s.listener.Close()
	s.listener = nil
	if err := os.Remove(filepath.Join(s.opts.Dir, agent.Socket)); err != nil {
		slog.Warn("agent", "error", err)
	}
}

func (s *Server) accept(l *net.UnixListener) {
	defer s.wg.Done()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		if s.listener != l || len(s.conns) >= maxConns || s.closed {
			s.mu.Unlock()
			c.Close()
			continue
		}
		k := newClient(c)
		s.conns[k] = true
		s.wg.Add(1)
		s.mu.Unlock()
		go func() {
			defer s.wg.Done()
			s.serve(k)
		}()
	}
}

// Close ends everything and removes the directory.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.silence()
	for k := range s.conns {
		k.conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return os.RemoveAll(s.opts.Dir)
}

// change wakes those that wait. s.mu is held.
func (s *Server) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// until waits for a condition, which is asked with s.mu held.
func (s *Server) until(ctx context.Context, met func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := met(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pidOf is the process that has connected, as the shim sees it (SO_PEERCRED).
func pidOf(c *net.UnixConn) int {
	pid := 0
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				pid = int(cred.Pid)
			}
		})
	}
	return pid
}

// helloTime is how long a connection may stay silent at first.
const helloTime = 10 * time.Second
