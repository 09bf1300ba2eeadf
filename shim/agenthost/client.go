// SPDX-License-Identifier: Apache-2.0

package agenthost

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/io-mig/mig/spec/agent"
)

// sendTime is how long an application may take to read a line.
const sendTime = time.Second

// client is one connection of an application. The fields below the line are
// guarded by the server's mutex.
type client struct {
	conn *net.UnixConn
	pid  int
	in   *bufio.Reader
	out  sync.Mutex // of writing; taken after the server's
	// ---
	greeted bool
	asked   string // the event that it was asked about
	ready   bool
	refused string // why, if it did
}

func newClient(c *net.UnixConn) *client {
	return &client{conn: c, pid: pidOf(c), in: agent.NewReader(c)}
}

// send writes a line in one piece. One that does not read is cut off.
func (k *client) send(l agent.Line) error {
	k.out.Lock()
	defer k.out.Unlock()
	return k.write(l)
}

// write is send for who holds k.out.
func (k *client) write(l agent.Line) error {
	if err := k.conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return err
	}
	_, err := k.conn.Write([]byte(l.String() + "\n"))
	if err != nil {
		k.conn.Close()
	}
	return err
}

// serve reads what an application says until its connection ends.
func (s *Server) serve(k *client) {
	err := s.greet(k)
	for err == nil {
		var l agent.Line
		if l, err = agent.Read(k.in); err == nil {
			err = s.heed(k, l)
		}
	}
	slog.Debug("agent: connection ends", "pid", k.pid, "error", err)
	k.conn.Close()
	s.mu.Lock()
	delete(s.conns, k)
	s.change()
	s.mu.Unlock()
}

// greet answers the first line.
func (s *Server) greet(k *client) error {
	if err := k.conn.SetReadDeadline(time.Now().Add(helloTime)); err != nil {
		return err
	}
	l, err := agent.Read(k.in)
	switch {
	case err != nil:
		return err
	case l.Verb != agent.Hello || l.Get("version") != agent.Version:
		return fmt.Errorf("%.100q instead of %s version=%s", l, agent.Hello, agent.Version)
	}
	if err := k.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	s.mu.Lock()
	if s.event != "" { // it came while the others were being asked
		defer s.mu.Unlock()
		return fmt.Errorf("event %s is under way", s.event)
	}
	answer := s.answer(l.Get("event"))
	k.greeted = true
	k.out.Lock() // whoever asks it from here on is heard after the answer
	s.change()
	s.mu.Unlock()
	defer k.out.Unlock()
	return k.write(answer)
}

// answer is the first word to who has answered an event. s.mu is held.
func (s *Server) answer(event string) agent.Line {
	if event == "" {
		return agent.New(agent.Welcome, "version", agent.Version, "generation", s.generation)
	}
	if s.away[event]--; s.away[event] <= 0 {
		delete(s.away, event)
	}
	for _, o := range s.outcomes {
		if o.event == event {
			return s.resumed(agent.Continued, o)
		}
	}
	// An event of which this shim knows nothing was that of the image.
	what := agent.Continued
	if s.opts.Restored {
		what = agent.Restored
	}
	return s.resumed(what, outcome{event: event})
}

func (s *Server) resumed(what string, o outcome) agent.Line {
	return agent.New(agent.Resumed, "event", o.event, "outcome", what, "generation", s.generation, "reason", o.reason)
}

// heed acts on a line. An error ends the connection.
func (s *Server) heed(k *client, l agent.Line) error {
	switch l.Verb {
	case agent.Ready, agent.Refuse:
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.Get("event") != k.asked || k.asked == "" {
			return nil // an answer to what was given up
		}
		if k.ready = true; l.Verb == agent.Refuse {
			k.refused = "it refuses: " + l.Get("reason")
		}
		s.change()
		return nil
	case agent.Checkpoint:
		return k.send(verdict(s.opts.Checkpoint != nil, func() error { return s.opts.Checkpoint(l.Get("exit") == "true", s.failed()) }))
	case agent.Migrate:
		return k.send(verdict(s.opts.Migrate != nil, func() error { return s.opts.Migrate(l.Get("host"), s.failed()) }))
	}
	return fmt.Errorf("%.100q is no line of an application", l)
}

func verdict(allowed bool, begin func() error) agent.Line {
	if !allowed {
		return agent.New(agent.Denied, "reason", "the container's annotations do not allow it")
	}
	if err := begin(); err != nil {
		return agent.New(agent.Denied, "reason", agent.Clip(err.Error()))
	}
	return agent.New(agent.Accepted)
}
