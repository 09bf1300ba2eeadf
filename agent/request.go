// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/io-mig/mig/spec/agent"
)

// DeniedError is a request that the container's annotations do not allow, or
// that cannot be begun.
type DeniedError struct{ Reason string }

func (e *DeniedError) Error() string { return "the agent denies it: " + e.Reason }

// Checkpoint asks for a checkpoint of this container, into the directory that
// its annotation io.mig/agent-checkpoint names. exit ends the container then. A
// nil error means that it was begun: the hooks tell how it ended.
func (c *Client) Checkpoint(ctx context.Context, exit bool) error {
	return c.request(ctx, agent.New(agent.Checkpoint, "exit", fmt.Sprint(exit)))
}

// Migrate asks for a move of this container to a host that its annotation
// io.mig/agent-migrate names. A nil error means that it was begun.
func (c *Client) Migrate(ctx context.Context, host string) error {
	return c.request(ctx, agent.New(agent.Migrate, "host", host))
}

var errBusy = errors.New("another request of this client is under way")

func (c *Client) request(ctx context.Context, l agent.Line) error {
	answers := make(chan agent.Line, 1)
	c.mu.Lock()
	k, busy := c.conn, c.answers != nil
	if !busy {
		c.answers = answers
	}
	c.mu.Unlock()
	if busy {
		return errBusy
	}
	defer func() {
		c.mu.Lock()
		c.answers = nil
		c.mu.Unlock()
	}()
	if err := k.send(l); err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	select {
	case said := <-answers:
		if said.Verb == agent.Denied {
			return &DeniedError{said.Get("reason")}
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ctx.Done():
		return ErrClosed
	}
}

// answer gives a request its answer.
func (c *Client) answer(l agent.Line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers != nil {
		select {
		case c.answers <- l:
		default:
		}
	}
}
