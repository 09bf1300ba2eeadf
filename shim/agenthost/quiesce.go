// SPDX-License-Identifier: Apache-2.0

package agenthost

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/io-mig/mig/spec/agent"
)

// comeBack is how long an event waits for applications that were asked before
// and have not asked what came of it.
const comeBack = time.Second

// Quiesce asks every connected application to come to rest and waits until all
// have, at most for the time-out. On success nobody is connected any more and
// nobody can connect until Resume. On an error the applications wait for Resume,
// too: it is due in any case.
func (s *Server) Quiesce(ctx context.Context, event, kind string, timeout time.Duration) error {
	back, cancel := context.WithTimeout(ctx, comeBack)
	_ = s.until(back, func() bool { return len(s.away) == 0 }) // those that ended never come
	cancel()
	ctx, cancel = context.WithTimeout(ctx, timeout)
	defer cancel()
	asked := s.ask(event)
	l := agent.New(agent.Prepare, "event", event, "kind", kind, "timeout_ms", strconv.FormatInt(timeout.Milliseconds(), 10))
	for _, k := range asked {
		_ = k.send(l) // a connection that ends is answer enough
	}
	err := s.until(ctx, func() bool { return s.answered(asked) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.event != event {
		return fmt.Errorf("the %s was given up meanwhile", kind)
	}
	if refused := s.why(asked, err != nil); refused != "" {
		err = errors.Join(fmt.Errorf("the application does not come to rest for the %s: %s (annotation io.mig/agent-timeout, or io.mig/agent-force=true to go on without it)", kind, refused), err)
	}
	if err != nil {
		return err
	}
	s.cut()
	return nil
}

// ask closes the socket and begins the event.
func (s *Server) ask(event string) (asked []*client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.event = event
	s.silence()
	for k := range s.conns {
		if !k.greeted {
			k.conn.Close()
			continue
		}
		k.asked, k.ready, k.refused = event, false, ""
		asked = append(asked, k)
	}
	return asked
}

// answered: everyone has answered, or has gone. s.mu is held.
func (s *Server) answered(asked []*client) bool {
	for _, k := range asked {
		if !k.ready && s.conns[k] {
			return false
		}
	}
	return true
}

// why names who is not at rest. s.mu is held.
func (s *Server) why(asked []*client, late bool) string {
	var out []string
	for _, k := range asked {
		switch {
		case k.refused != "":
			out = append(out, fmt.Sprintf("pid %d: %s", k.pid, k.refused))
		case late && !k.ready && s.conns[k]:
			out = append(out, fmt.Sprintf("pid %d does not answer", k.pid))
		}
	}
	return strings.Join(out, "; ")
}

// cut ends every connection: the container's state must hold none. s.mu is held.
func (s *Server) cut() {
	for k := range s.conns {
		if k.ready {
			s.away[s.event]++
		}
		k.conn.Close()
	}
}

// Force cuts the connections of a container that cannot or need not answer. What
// becomes of it the applications see by the generation when they connect again.
func (s *Server) Force(event string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.event = event
	s.silence()
	s.cut()
}

// Resume lets the applications connect and tells them that this container goes
// on; reason says why the event failed, empty if it did not. Without an event it
// does nothing.
func (s *Server) Resume(reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.event == "" || s.closed {
		return nil
	}
	o := outcome{event: s.event, reason: agent.Clip(reason)}
	if s.event = ""; reason != "" {
		s.failures++
	}
	s.outcomes = append(s.outcomes, o)
	if len(s.outcomes) > maxOutcomes {
		s.outcomes = s.outcomes[1:]
	}
	l := s.resumed(agent.Continued, o)
	for k := range s.conns { // those that were not cut
		if k.asked == o.event {
			k.asked = ""
			go func() { _ = k.send(l) }() // who does not read is cut off
		}
	}
	return s.listen()
}

// failed tells the applications that what one of them has asked for has failed,
// unless they hear it from the event.
func (s *Server) failed() func(error) {
	s.mu.Lock()
	before := s.failures
	s.mu.Unlock()
	return func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.failures != before {
			return
		}
		l := s.resumed(agent.Continued, outcome{reason: agent.Clip(err.Error())})
		for k := range s.conns {
			if k.greeted {
				go func() { _ = k.send(l) }() // who does not read is cut off
			}
		}
	}
}
