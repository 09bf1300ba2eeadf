// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/io-mig/mig/layers/request/job"
)

// Client is the source's side. Its methods are called in the order of the
// conversation. After an error only Close is left, but for Abort.
type Client struct {
	conn *Conn
	// Peer is what the destination says of itself.
	Peer Host
	// Skew is how far the destination's clock is ahead of ours, give or take the
	// half of a round trip.
	Skew time.Duration
}

// RefusedError is a destination that cannot take the container. Nothing was
// touched.
type RefusedError struct{ Mismatches []Mismatch }

func (e *RefusedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the destination cannot take the container (%d reasons):", len(e.Mismatches))
	if len(e.Mismatches) == 1 {
		b.Reset()
		b.WriteString("the destination cannot take the container:")
	}
	for _, m := range e.Mismatches {
		fmt.Fprintf(&b, "\n  %s", m)
	}
	return b.String()
}

// FailedError is a move that failed at the destination, told as it was told
// there.
type FailedError struct{ *job.Failure }

func (e *FailedError) Error() string { return "at the destination: " + e.Text }

// Unwrap returns what was told.
func (e *FailedError) Unwrap() error { return e.Failure }

// Meet says hello on a connection, which becomes the Client's.
func Meet(c *Conn, self Host) (*Client, error) { return meet(c, self, Oldest, Newest) }

func meet(c *Conn, self Host, oldest, newest int) (*Client, error) {
	sent := time.Now()
	self.Time = sent
	if err := c.Send(Message{Hello: &Hello{Oldest: oldest, Newest: newest, Host: self}}); err != nil {
		return nil, err
	}
	m, err := c.Receive()
	if err != nil {
		return nil, fmt.Errorf("wait for the hello of %s: %w", c.Peer(), noEOF(err))
	}
	if m.End != nil && m.End.Failure != nil {
		return nil, &FailedError{m.End.Failure}
	}
	if m.Hello == nil {
		return nil, fmt.Errorf("%w: its first message is no hello", ErrProtocol)
	}
	if _, err := agree(oldest, newest, m.Hello); err != nil {
		return nil, err
	}
	now := time.Now()
	return &Client{conn: c, Peer: m.Hello.Host, Skew: m.Hello.Host.Time.Sub(sent.Add(now.Sub(sent) / 2))}, nil
}

// agree picks the newest version that both sides speak.
func agree(oldest, newest int, h *Hello) (int, error) {
	v := min(newest, h.Newest)
	if v < oldest || v < h.Oldest {
		return 0, fmt.Errorf("this mig speaks versions %d to %d of the control protocol, %s (mig %s) speaks %d to %d: use releases that are at most one apart",
			oldest, newest, h.Host.Name, h.Host.Tool, h.Oldest, h.Newest)
	}
	return v, nil
}

// Close ends the conversation. Before the commit that ends the move.
func (c *Client) Close() error { return c.conn.Close() }

// Offer asks whether the container may come. A no is a *RefusedError.
func (c *Client) Offer(o *Offer) (*Answer, error) {
	if err := o.Valid(); err != nil {
		return nil, fmt.Errorf("the container cannot be described to the destination: %w", err)
	}
	if err := c.conn.Send(Message{Offer: o}); err != nil {
		return nil, err
	}
	m, err := c.receive()
	if err != nil {
		return nil, err
	}
	if m.Answer == nil {
		return nil, fmt.Errorf("%w: no answer to the offer", ErrProtocol)
	}
	if len(m.Answer.Mismatches) > 0 {
		return nil, &RefusedError{m.Answer.Mismatches}
	}
	return m.Answer, nil
}

// Put sends one blob, of which the destination has the bytes before b.Offset,
// and waits until it is there. r yields the rest. sent is told of each part.
func (c *Client) Put(ctx context.Context, b Blob, r io.Reader, sent func(n int)) error {
	if err := c.conn.Send(Message{Blob: &b}); err != nil {
		return err
	}
	buf := make([]byte, MaxChunk)
	for left := b.Size - b.Offset; left > 0; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(r, buf[:min(left, MaxChunk)])
		if err != nil {
			return fmt.Errorf("read blob %s: %w", b.Digest, noEOF(err))
		}
		if err := c.conn.write(frameChunk, buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
		sent(n)
	}
	m, err := c.receive()
	if err != nil {
		return err
	}
	if m.Stored == nil || m.Stored.Digest != b.Digest {
		return fmt.Errorf("%w: blob %s was not confirmed", ErrProtocol, b.Digest)
	}
	return nil
}

// Prepare has the destination make everything up to the frame.
func (c *Client) Prepare() (*Prepared, error) {
	if err := c.conn.Send(Message{Prepare: &Prepare{}}); err != nil {
		return nil, err
	}
	// Unpacking an image takes its time; the connection's keep-alive tells
	// whether the destination lives.
	m, err := c.conn.receive(0)
	if err == nil && m.End != nil {
		err = endError(m.End)
	}
	if err != nil {
		return nil, fmt.Errorf("wait for the destination's preparation: %w", noEOF(err))
	}
	if m.Prepared == nil {
		return nil, fmt.Errorf("%w: no answer to prepare", ErrProtocol)
	}
	return m.Prepared, nil
}

// Wait returns the outcome at the destination. An outcome that is a failure is a
// *FailedError beside the End; an End of nil means that none was told. report
// is told of the destination's progress.
func (c *Client) Wait(report func(job.Progress)) (*End, error) {
	for {
		m, err := c.conn.receive(0)
		switch {
		case err != nil:
			return nil, fmt.Errorf("the destination was cut off before it told the outcome: %w", noEOF(err))
		case m.Progress != nil:
			report(*m.Progress)
		case m.End != nil:
			return m.End, endError(m.End)
		default:
			return nil, fmt.Errorf("%w: neither progress nor an end", ErrProtocol)
		}
	}
}

// Abort asks the destination to end the move, if that is still possible. It may
// be called while another method waits, whose answer then is the end.
func (c *Client) Abort(reason error) error {
	return c.conn.Send(Message{Abort: &Abort{Reason: reason.Error()}})
}

// receive reads an answer that is due. The destination may end the move instead.
func (c *Client) receive() (Message, error) {
	m, err := c.conn.Receive()
	if err != nil {
		return m, fmt.Errorf("wait for the destination: %w", noEOF(err))
	}
	if m.End != nil {
		return m, endError(m.End)
	}
	return m, nil
}

func endError(e *End) error {
	switch {
	case e.Running:
		return nil
	case e.Failure == nil:
		return fmt.Errorf("%w: it ended the move and does not say why", ErrProtocol)
	}
	return &FailedError{e.Failure}
}

// IsRefused tells whether an error is a destination's no.
func IsRefused(err error) bool {
	var r *RefusedError
	return errors.As(err, &r)
}
