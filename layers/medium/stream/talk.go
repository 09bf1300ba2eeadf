// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// Peer is what either end of a stream is beside a medium: commands to the other
// side. Command with a receiver (record.Command.To) waits for the answer.
type Peer interface {
	// Handle gives commands for a receiver to h; nil takes it away. One-way
	// commands are handled in the order in which they were sent, by the goroutine
	// that reads the connection: h must not block on them. Others run side by
	// side.
	Handle(to string, h Handler)
	// Tell sends a one-way command. That it was sent does not mean that it
	// arrives.
	Tell(ctx context.Context, c record.Command) error
	// Command sends a command and returns its answer.
	Command(ctx context.Context, c record.Command) (record.Command, error)
	// Over is closed when nothing more will come from the peer, Err says why
	// where the stream is broken.
	Over() <-chan struct{}
	Err() error
}

// Handler takes a command. The answer's To and Verb do not travel. The context
// ends with the stream.
type Handler func(ctx context.Context, c record.Command) (record.Command, error)

// RemoteError is what the other side's handler said.
type RemoteError struct {
	To, Verb, Text string
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("the peer's %s, asked to %s: %s", e.To, e.Verb, e.Text)
}

// maxCalls bounds the commands that the peer may have under way here.
const maxCalls = 32

// talk keeps the commands of one end.
type talk struct {
	mu sync.Mutex
	// Below: guarded by mu.
	handlers map[string]Handler
	calls    map[uint64]chan answer
	next     uint64
	serving  int
}

type answer struct {
	body   []byte
	failed bool
}

func (t *talk) init() { t.handlers, t.calls = map[string]Handler{}, map[uint64]chan answer{} }

// Handle is Peer's.
func (c *core) Handle(to string, h Handler) {
	c.talk.mu.Lock()
	defer c.talk.mu.Unlock()
	if h == nil {
		delete(c.talk.handlers, to)
		return
	}
	c.talk.handlers[to] = h
}

// call sends a command by send and waits for its answer.
func (c *core) call(ctx context.Context, cmd record.Command, send func(context.Context, []byte) error) (record.Command, error) {
	t := &c.talk
	got := make(chan answer, 1)
	t.mu.Lock()
	t.next++
	number := t.next
	t.calls[number] = got
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.calls, number)
		t.mu.Unlock()
	}()
	frame, err := wire.AppendCommand(nil, number, cmd)
	if err != nil {
		return record.Command{}, err
	}
	if err := send(ctx, frame); err != nil {
		return record.Command{}, err
	}
	select {
	case a := <-got:
		if a.failed {
			return record.Command{}, &RemoteError{To: cmd.To, Verb: cmd.Verb, Text: string(a.body)}
		}
		return record.Command{To: cmd.To, Verb: cmd.Verb, Body: a.body}, nil
	case <-ctx.Done():
		return record.Command{}, ctx.Err()
	case <-c.live.Done():
		return record.Command{}, context.Cause(c.live)
	}
}

// heard takes a Command or Answer frame. The body is the callee's.
func (c *core) heard(t wire.Type, body []byte, send func(context.Context, []byte) error) error {
	if t == wire.Answer {
		return c.answered(body)
	}
	number, cmd, err := wire.DecodeCommand(body)
	if err != nil {
		return err
	}
	c.talk.mu.Lock()
	h := c.talk.handlers[cmd.To]
	if number != 0 {
		c.talk.serving++
	}
	many := c.talk.serving > maxCalls
	c.talk.mu.Unlock()
	if many {
		return fmt.Errorf("%w: more than %d commands at a time", wire.ErrProtocol, maxCalls)
	}
	if h == nil {
		h = func(context.Context, record.Command) (record.Command, error) {
			return record.Command{}, fmt.Errorf("nobody here is called %q: %w", cmd.To, errors.ErrUnsupported)
		}
	}
	if number == 0 {
		_, _ = h(c.live, cmd)
		return nil
	}
	c.work.Go(func() {
		reply, err := h(c.live, cmd)
		_ = send(c.live, wire.AppendAnswer(nil, number, reply.Body, err)) // a failed send has broken the stream
		c.talk.mu.Lock()
		c.talk.serving--
		c.talk.mu.Unlock()
	})
	return nil
}

func (c *core) answered(body []byte) error {
	number, body, failed, err := wire.DecodeAnswer(body)
	if err != nil {
		return err
	}
	c.talk.mu.Lock()
	defer c.talk.mu.Unlock()
	if got := c.talk.calls[number]; got != nil {
		delete(c.talk.calls, number)
		got <- answer{body, failed}
		return nil
	}
	if number == 0 || number > c.talk.next {
		return fmt.Errorf("%w: an answer to command %d, which nobody sent", wire.ErrProtocol, number)
	}
	return nil // whoever asked has stopped waiting
}
