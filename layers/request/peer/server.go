// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/io-mig/mig/layers/request/job"
)

// Destination does what a source asks for, for one move. The server calls its
// methods in the order of the conversation, one at a time, and Undo last,
// whatever happened.
type Destination interface {
	// Consider says what does not fit and what is wanted. It touches nothing but
	// what Undo forgets.
	Consider(ctx context.Context, o *Offer) (*Answer, error)
	// Store keeps a blob, of which r yields the bytes from b.Offset to its end.
	Store(ctx context.Context, b *Blob, r io.Reader) error
	// Prepare makes everything up to the frame that waits for the engine.
	Prepare(ctx context.Context) (*Prepared, error)
	// Await returns the outcome. The end of ctx (its cause is the reason) cancels
	// the move if that is still possible; Await then returns what became of it.
	Await(ctx context.Context, report func(job.Progress)) *End
	// Undo removes whatever was made, unless the copy runs.
	Undo(reason error) error
}

// Server answers sources.
type Server struct {
	// Self is what it says of its host.
	Self func() Host
	// New begins a move. An error is told to the source.
	New func(source Host) (Destination, error)

	// oldest and newest are the constants but for tests.
	oldest, newest int
}

// ErrAborted is wrapped where the source has ended the move, or is gone.
var ErrAborted = errors.New("the source has ended the move")

// AbortedError is an end that the source has told. Who is merely not heard of any more
// may be cut off, and has not decided anything.
type AbortedError struct{ Reason string }

func (e *AbortedError) Error() string { return ErrAborted.Error() + ": " + e.Reason }

// Unwrap returns ErrAborted.
func (e *AbortedError) Unwrap() error { return ErrAborted }

// ErrEnding is wrapped where this side's context has ended the move.
var ErrEnding = errors.New("the destination's daemon ends, and takes nothing any more")

// Serve has one conversation. It returns when the move has ended, and Undo was
// called if the copy does not run. A nil error means that the copy runs.
func (s *Server) Serve(ctx context.Context, c *Conn) error {
	defer c.Close()
	// What waits for the source must end with the daemon.
	defer context.AfterFunc(ctx, func() { c.Close() })()
	d, err := s.greet(c)
	if err != nil {
		if !errors.Is(err, io.EOF) { // somebody only looked whether we are there
			err = errors.Join(err, tell(c, err))
		}
		return err
	}
	t := &talk{conn: c, dest: d}
	end, err := t.run(ctx)
	if end != nil && end.Running {
		return nil
	}
	if undone := d.Undo(err); undone != nil {
		err = fmt.Errorf("%w; and what was made could not be removed: %w", err, undone)
	}
	if end == nil || end.Failure == nil {
		end = &End{}
	}
	end.Failure = job.FailureOf(err)
	// The source hears of a failure only when nothing is left of it here, so that
	// its next attempt finds the id free.
	if !IsRefused(err) { // the answer has told it
		_ = c.Send(Message{End: end})
	}
	return err
}

func tell(c *Conn, err error) error {
	return c.Send(Message{End: &End{Failure: job.FailureOf(err)}})
}

func (s *Server) greet(c *Conn) (Destination, error) {
	oldest, newest := s.oldest, s.newest
	if newest == 0 {
		oldest, newest = Oldest, Newest
	}
	m, err := c.Receive()
	if err != nil {
		return nil, err
	}
	if m.Hello == nil {
		return nil, fmt.Errorf("%w: its first message is no hello", ErrProtocol)
	}
	if err := c.Send(Message{Hello: &Hello{Oldest: oldest, Newest: newest, Host: s.Self()}}); err != nil {
		return nil, err
	}
	if _, err := agree(oldest, newest, m.Hello); err != nil {
		return nil, err
	}
	return s.New(m.Hello.Host)
}

// talk is one conversation behind the hellos.
type talk struct {
	conn   *Conn
	dest   Destination
	offer  *Offer
	wanted map[string]int64 // size by digest
}

// receive returns what the source says next, and ErrEnding once the context is
// done: its end closes the connection, but a message may come before that.
func (t *talk) receive(ctx context.Context) (Message, error) {
	m, err := t.conn.Receive()
	if err != nil || ctx.Err() != nil {
		return m, lost(ctx, err)
	}
	return m, nil
}

// lost says why nothing is received any more: a connection that is closed may
// have been closed on this side.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrEnding, context.Cause(ctx))
	}
	return fmt.Errorf("%w: %w", ErrAborted, noEOF(err))
}

// run goes through the conversation. An End is returned once the destination
// was asked for one.
func (t *talk) run(ctx context.Context) (*End, error) {
	if err := t.consider(ctx); err != nil {
		return nil, err
	}
	for {
		m, err := t.receive(ctx)
		switch {
		case err != nil:
			return nil, err
		case m.Abort != nil:
			return nil, &AbortedError{m.Abort.Reason}
		case m.Blob != nil:
			err = t.store(ctx, m.Blob)
		case m.Prepare != nil:
			return t.move(ctx)
		default:
			err = fmt.Errorf("%w: neither a blob nor prepare", ErrProtocol)
		}
		if err != nil {
			return nil, err
		}
	}
}

func (t *talk) consider(ctx context.Context) error {
	m, err := t.receive(ctx)
	if err != nil {
		return err
	}
	if m.Offer == nil {
		return fmt.Errorf("%w: no offer", ErrProtocol)
	}
	t.offer = m.Offer
	a, err := t.dest.Consider(ctx, m.Offer)
	if err != nil {
		return err
	}
	if err := t.conn.Send(Message{Answer: a}); err != nil {
		return err
	}
	if len(a.Mismatches) > 0 {
		return &RefusedError{a.Mismatches}
	}
	sizes := map[string]int64{}
	for _, b := range m.Offer.Container.Image.Blobs {
		sizes[string(b.Digest)] = b.Size
	}
	t.wanted = map[string]int64{}
	for _, w := range a.Wanted {
		t.wanted[string(w.Digest)] = sizes[string(w.Digest)]
	}
	return nil
}

// store takes one blob that was asked for.
func (t *talk) store(ctx context.Context, b *Blob) error {
	size, ok := t.wanted[string(b.Digest)]
	if !ok || size != b.Size {
		return fmt.Errorf("%w: blob %s of %d bytes was not asked for", ErrProtocol, b.Digest, b.Size)
	}
	r := &chunks{ctx: ctx, conn: t.conn, left: b.Size - b.Offset}
	if err := t.dest.Store(ctx, b, r); err != nil {
		return fmt.Errorf("blob %s: %w", b.Digest, err)
	}
	if r.left > 0 || len(r.rest) > 0 {
		return fmt.Errorf("blob %s: %d bytes of it were not used", b.Digest, r.left+int64(len(r.rest)))
	}
	delete(t.wanted, string(b.Digest))
	return t.conn.Send(Message{Stored: &Stored{Digest: b.Digest}})
}

// chunks reads one blob out of its frames.
type chunks struct {
	ctx  context.Context // of the call that reads
	conn *Conn
	left int64 // not received yet
	rest []byte
}

func (r *chunks) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *chunks) next() error {
	t, n, err := r.conn.header(r.conn.patience)
	if errors.Is(err, ErrProtocol) {
		return err
	}
	if err != nil {
		return lost(r.ctx, err)
	}
	if t != frameChunk || int64(n) > r.left {
		return fmt.Errorf("%w: a frame of type %d with %d bytes, where %d bytes of a blob are due", ErrProtocol, t, n, r.left)
	}
	b := make([]byte, n)
	if err := r.conn.body(b); err != nil {
		return lost(r.ctx, err)
	}
	r.rest, r.left = b, r.left-int64(n)
	return nil
}

// move prepares and waits for the outcome, while the source may abort or be
// gone at any moment.
func (t *talk) move(ctx context.Context) (*End, error) {
	if len(t.wanted) > 0 {
		return nil, fmt.Errorf("%w: it wants to begin, but %d blobs are missing", ErrProtocol, len(t.wanted))
	}
	daemon := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		m, err := t.conn.receive(0)
		switch {
		case err != nil:
			err = lost(daemon, err)
		case m.Abort != nil:
			err = &AbortedError{m.Abort.Reason}
		default:
			err = fmt.Errorf("%w: it speaks out of turn", ErrProtocol)
		}
		cancel(err)
	}()
	p, err := t.dest.Prepare(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.conn.Send(Message{Prepared: p}); err != nil {
		cancel(err) // the outcome is for Await to tell all the same
	}
	end := t.dest.Await(ctx, func(p job.Progress) {
		p = p.Bounded()
		_ = t.conn.Send(Message{Progress: &p}) // a source that is gone is noticed by its reader
	})
	if end.Running {
		// A source that does not hear it learns it by its engine, or asks.
		_ = t.conn.Send(Message{End: end})
		return end, nil
	}
	return end, why(ctx, end.Failure)
}

// why a move has failed: what happened here and, where the source has ended it,
// that it did.
func why(ctx context.Context, f *job.Failure) error {
	cause := context.Cause(ctx)
	switch {
	case f == nil && cause == nil:
		return errors.New("the copy does not run, and nobody said why")
	case f == nil:
		return cause
	case cause == nil:
		return f
	case f.Text == cause.Error():
		return cause
	}
	return fmt.Errorf("%w: %w", cause, f)
}
