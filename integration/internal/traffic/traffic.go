// SPDX-License-Identifier: Apache-2.0

// Package traffic has clients at work on servers in containers while these are
// moved, and says what the clients have noticed: how long they heard nothing,
// which requests failed, which connections were reset. Tests of live moves and
// the benchmark of them share it.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/lab"
)

// Server is a program that is moved, and its clients.
type Server struct {
	Name    string
	Image   image.Image
	Command []string // empty: the image's
	Port    int
	// Work has clients at work on the server at an IP address, which listens. The
	// caller must Close the load.
	Work func(ctx context.Context, c Client, ip string) (Load, error)
}

// Client is the host of the clients.
type Client struct {
	*lab.Host
	Dir string // for scratch files; the caller's
}

// Load is clients at work.
type Load interface {
	// Begin begins a look at them. The end of ctx ends clients that work for one
	// look only.
	Begin(ctx context.Context) error
	// End is what they have seen since Begin. It returns when they have heard of
	// the server again. An error says that nobody can tell what they saw.
	End() (Seen, error)
	// Close ends them, and says what was wrong with the whole of what they were
	// told, as far as that shows only then.
	Close() error
}

// Seen is what clients have seen between Begin and End.
type Seen struct {
	// Silence is the longest time for which one of them heard nothing.
	Silence time.Duration
	// Until is when they stopped to work: what happened later they did not see.
	Until time.Time
	// Failed requests, and Reset connections.
	Failed, Reset int
	// Trouble is what a client said of the first of these.
	Trouble string
}

// Err is an error if a client has noticed more than a silence.
func (s *Seen) Err() error {
	if s.Failed == 0 && s.Reset == 0 {
		return nil
	}
	return fmt.Errorf("%d requests failed, %d connections were reset: %s", s.Failed, s.Reset, s.Trouble)
}

// blame counts a client's error.
func (s *Seen) blame(err error) {
	switch {
	case err == nil:
		return
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.Reset++
	default:
		s.Failed++
	}
	if s.Trouble == "" {
		s.Trouble = err.Error()
	}
}

// patience is how long a client waits for an answer.
const patience = 30 * time.Second

// Listens waits until somebody answers at an address.
func (c Client) Listens(ctx context.Context, address string) error {
	return c.await(ctx, "somebody listens at "+address, func() bool {
		conn, err := c.Dial(ctx, "tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// await waits for a state.
func (Client) await(ctx context.Context, what string, state func() bool) error {
	for end := time.Now().Add(patience); !state(); time.Sleep(20 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		if time.Now().After(end) {
			return fmt.Errorf("not within %s: %s", patience, what)
		}
	}
	return nil
}

// run runs a program of the clients' to its end and returns what it printed.
func (c Client) run(ctx context.Context, script string) (string, error) {
	out, err := c.Command(ctx, "sh", "-c", script).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", script, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// tcp dials the server of a Work.
func (c Client) tcp(ip string, port int) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return c.Dial(ctx, "tcp", net.JoinHostPort(ip, fmt.Sprint(port)))
	}
}
