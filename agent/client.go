// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/io-mig/mig/spec/agent"
)

// ErrNoAgent says that the container has no socket of an agent, since it does not run
// under io.mig.v1 or lacks the annotation io.mig/agent=true.
var ErrNoAgent = errors.New("this container has no agent (annotation io.mig/agent=true)")

// ErrClosed says that the client was closed.
var ErrClosed = errors.New("the agent's client is closed")

// Event is a checkpoint or a move that is about to take the container's state.
type Event struct {
	ID string
	// Move tells a move to another host from a checkpoint into an image.
	Move bool
}

// Outcome is what came of an event.
type Outcome struct {
	// Event is the event's id, empty where the application was restored without
	// having been asked before (it was paused, or was given no time).
	Event string
	// Restored: this process is part of the copy. Otherwise it is part of the
	// container that was there before, because that was to run on, or because
	// the event failed: then Reason says why.
	Restored bool
	Reason   string
	// Generation names this life of the container: 32 hexadecimal digits, drawn
	// anew whenever it is started or restored. Two copies never have the same.
	Generation string
}

// Hooks are an application's. Each may be nil. They are called one at a time, by
// a goroutine of the client.
type Hooks struct {
	// Before runs before the container's state is taken. Its context ends with
	// the time that the hook is given. An error refuses the event, which is then
	// undone.
	Before func(ctx context.Context, e Event) error
	// After runs when the container goes on, as the original or as the copy. It
	// also runs for an event that was refused by another part of the
	// application, if Before was called.
	After func(o Outcome)
	// Path of the socket; empty means the one that the annotation mounts.
	Path string
}

// Client is an application's connection to the shim of its container. Its
// methods may be called from any goroutine, but not from hooks.
type Client struct {
	hooks Hooks
	stop  context.CancelFunc
	ctx   context.Context
	over  chan struct{}

	mu sync.Mutex
	// Below: guarded by mu.
	conn       *conn
	generation string
	answers    chan agent.Line // of the request under way, nil if there is none
}

// Dial connects to the shim and runs the hooks from then on.
func Dial(h Hooks) (*Client, error) {
	if h.Path == "" {
		h.Path = agent.Path
	}
	c := &Client{hooks: h, over: make(chan struct{})}
	c.ctx, c.stop = context.WithCancel(context.Background())
	said, err := c.open("")
	if err != nil {
		c.stop()
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrNoAgent, err)
		}
		return nil, err
	}
	c.mu.Lock()
	c.generation = said.Get("generation")
	c.mu.Unlock()
	go c.serve()
	return c, nil
}

// Close ends the connection. Hooks are not called any more when it returns.
func (c *Client) Close() error {
	c.stop()
	c.mu.Lock()
	k := c.conn
	c.mu.Unlock()
	if k != nil {
		k.Close()
	}
	<-c.over
	return nil
}

// Generation is this life's, see Outcome.
func (c *Client) Generation() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// open makes a connection and returns the shim's first line. event is the one
// whose outcome is asked for, or empty.
func (c *Client) open(event string) (agent.Line, error) {
	var d net.Dialer
	sock, err := d.DialContext(c.ctx, "unix", c.hooks.Path)
	if err != nil {
		return agent.Line{}, fmt.Errorf("connect to the agent: %w", err)
	}
	k := newConn(sock)
	said, err := k.ask(agent.New(agent.Hello, "version", agent.Version, "event", event))
	if err == nil && said.Verb != agent.Welcome && said.Verb != agent.Resumed {
		err = fmt.Errorf("the agent says %.100q", said)
	}
	if err != nil {
		k.Close()
		return said, err
	}
	c.mu.Lock()
	c.conn = k
	c.mu.Unlock()
	if c.ctx.Err() != nil {
		k.Close() // Close came before it could know of this one
	}
	return said, nil
}

// serve reads what the shim says until Close.
func (c *Client) serve() {
	defer close(c.over)
	event := "" // the one that Before was called for
	for {
		c.mu.Lock()
		k := c.conn
		c.mu.Unlock()
		l, err := agent.Read(k.in)
		switch {
		case err != nil:
			// Closed: the container's state is being taken, or was meanwhile.
			k.Close()
			if event = c.again(event); c.ctx.Err() != nil {
				return
			}
		case l.Verb == agent.Prepare:
			if event != "" { // the one before was given up without a word
				c.after(agent.New(agent.Resumed, "event", event, "outcome", agent.Continued))
			}
			event = l.Get("event")
			c.before(k, l)
		case l.Verb == agent.Resumed:
			c.after(l)
			event = ""
		case l.Verb == agent.Accepted, l.Verb == agent.Denied:
			c.answer(l)
		}
	}
}

// before runs the hook and answers.
func (c *Client) before(k *conn, l agent.Line) {
	event := l.Get("event")
	err := c.runBefore(Event{ID: event, Move: l.Get("kind") == agent.KindMove}, l.Get("timeout_ms"))
	answer := agent.New(agent.Ready, "event", event)
	if err != nil {
		answer = agent.New(agent.Refuse, "event", event, "reason", agent.Clip(err.Error()))
	}
	_ = k.send(answer) // a connection that broke shows when it is read
}

func (c *Client) runBefore(e Event, timeout string) error {
	if c.hooks.Before == nil {
		return nil
	}
	ms, err := strconv.ParseUint(timeout, 10, 31)
	if err != nil {
		return fmt.Errorf("the agent gives a time of %q ms", timeout)
	}
	ctx, cancel := context.WithTimeout(c.ctx, time.Duration(ms)*time.Millisecond)
	defer cancel()
	return c.hooks.Before(ctx, e)
}

// Times between two attempts to connect again, and how many attempts in a row may
// find no socket before an event counts as given up: nobody knows how long an
// application is frozen between two of them, so time does not count.
const (
	firstPause = time.Millisecond
	lastPause  = 5 * time.Millisecond
	patience   = 6000 // about 30 s
)

// again connects until it succeeds, and learns what came of the event. It
// returns the event that is still open.
func (c *Client) again(event string) string {
	pause := firstPause
	for n := 1; ; n++ {
		said, err := c.open(event)
		if err == nil {
			c.resumed(event, said)
			return ""
		}
		if n == patience && event != "" {
			c.after(agent.New(agent.Resumed, "event", event, "outcome", agent.Continued, "reason", "the shim does not answer: "+err.Error()))
			event = ""
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) && n > patience {
			pause = time.Second
		}
		select {
		case <-time.After(pause):
		case <-c.ctx.Done():
			return event
		}
		pause = min(2*pause, lastPause)
	}
}

// resumed acts on the first line of a new connection.
func (c *Client) resumed(event string, said agent.Line) {
	if said.Verb == agent.Resumed {
		c.after(said)
		return
	}
	// Nobody asked before: another life means that this is a copy.
	c.mu.Lock()
	other := said.Get("generation") != c.generation
	c.mu.Unlock()
	switch {
	case other:
		c.after(agent.New(agent.Resumed, "event", event, "outcome", agent.Restored, "generation", said.Get("generation")))
	case event != "":
		c.after(agent.New(agent.Resumed, "event", event, "outcome", agent.Continued, "generation", said.Get("generation")))
	}
}

// after notes the generation and runs the hook.
func (c *Client) after(l agent.Line) {
	c.mu.Lock()
	if g := l.Get("generation"); g != "" {
		c.generation = g
	}
	o := Outcome{Event: l.Get("event"), Restored: l.Get("outcome") == agent.Restored, Reason: l.Get("reason"), Generation: c.generation}
	c.mu.Unlock()
	if c.hooks.After != nil {
		c.hooks.After(o)
	}
}
