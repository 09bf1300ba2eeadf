// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// Reader is the importer's end. It is a medium.Medium.
type Reader struct {
	core
	buffers medium.Buffers
	unpack  unpacker
	// first is connection 0, known after its Hello.
	first net.Conn
	// out is held while something is written to first.
	out chan struct{}
	// answered is closed when nothing more will be said to the exporter.
	answered chan struct{}
	// hello[i]: connection number i has come.
	hello []bool

	ready map[uint64]*arrival // records that were not popped yet, by sequence number
	next  uint64              // sequence number to hand out
	// hurry: nobody has come for a record in time, so the connections do not wait.
	hurry    bool
	held     uint64          // window in use
	given    uint64          // window given back since the start
	reported uint64          // of that, what Credit said
	released uint64          // all records below this number are released
	early    map[uint64]bool // released ones above it
	flush    int64           // a Flush that waits for its Ack, -1: none
}

// NewReader takes the other ends of a Writer's connections, in any order. It
// owns them.
func NewReader(o Options, conns ...net.Conn) (*Reader, error) {
	r, err := newReader(o, conns)
	if err != nil {
		return nil, err
	}
	for _, conn := range conns {
		r.work.Go(func() {
			g, err := ReadGreeting(conn)
			if err == nil {
				err = r.greet(conn, g)
			}
			r.receive(conn, g.Index, err)
		})
	}
	return r, nil
}

// NewGreetedReader takes connections whose Hello was read (see Gather).
func NewGreetedReader(o Options, conns []net.Conn, greetings []wire.Greeting) (*Reader, error) {
	r, err := newReader(o, conns)
	if err != nil {
		return nil, err
	}
	for i, conn := range conns {
		err := r.greet(conn, greetings[i])
		r.work.Go(func() { r.receive(conn, greetings[i].Index, err) })
	}
	return r, nil
}

func newReader(o Options, conns []net.Conn) (*Reader, error) {
	r := &Reader{hello: make([]bool, len(conns)), ready: map[uint64]*arrival{}, early: map[uint64]bool{}, flush: -1, out: make(chan struct{}, 1), answered: make(chan struct{})}
	if err := r.init(o, conns); err != nil {
		return nil, err
	}
	r.work.Go(func() {
		defer close(r.answered)
		r.report()
	})
	return r, nil
}

// receive takes the frames of one connection until it ends.
func (r *Reader) receive(conn net.Conn, index int, err error) {
	if index == 0 {
		defer r.finish()
	}
	for err == nil {
		err = r.frame(conn, index)
	}
	r.mu.Lock()
	whole := r.bye
	r.mu.Unlock()
	if whole || err == io.EOF && index > 0 {
		return // the first connection tells whether that was too early
	}
	_ = r.broken(conn, index, err)
}

// broken ends the stream since a connection has failed.
func (r *Reader) broken(conn net.Conn, index int, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return r.fail(fmt.Errorf("stream: connection %d from %s was cut off: %w", index, conn.RemoteAddr(), medium.ErrIncomplete))
	}
	return r.fail(fmt.Errorf("stream: connection %d from %s: %w: %w", index, conn.RemoteAddr(), medium.ErrIncomplete, err))
}

// greet takes a connection into the stream.
func (r *Reader) greet(conn net.Conn, g wire.Greeting) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case g.Purpose != wire.Data || g.Token != r.opts.Token:
		return fmt.Errorf("%w: %s connection of move %s, here is move %s", wire.ErrProtocol, g.Purpose, g.Token, r.opts.Token)
	case g.Count != len(r.conns) || r.hello[g.Index]:
		return fmt.Errorf("%w: connection %d of %d, here are %d or it came twice", wire.ErrProtocol, g.Index, g.Count, len(r.conns))
	}
	r.hello[g.Index] = true
	if g.Index == 0 {
		r.first = conn
	}
	r.broadcast()
	return nil
}

// frame takes one frame.
func (r *Reader) frame(conn net.Conn, index int) error {
	t, n, err := readFrame(conn)
	if err != nil {
		return err
	}
	if t == wire.Record || t == wire.Compressed {
		return r.record(conn, index, t, n)
	}
	if index != 0 || t == wire.Hello || t == wire.Credit || t == wire.Ack || t == wire.Pull || t == wire.Pulled {
		return fmt.Errorf("%w: frame %d on connection %d", wire.ErrProtocol, t, index)
	}
	body, err := readBody(conn, n)
	if err != nil {
		return err
	}
	if t == wire.Command || t == wire.Answer {
		return r.heard(t, body, r.sendFirst)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.broadcast()
	switch t {
	case wire.Manifest:
		r.manifest = body
	case wire.Flush:
		r.flush = int64(min(binary.LittleEndian.Uint64(body), 1<<62))
	case wire.Bye:
		r.bye = true
		return io.EOF
	case wire.Failure:
		return fmt.Errorf("the exporter failed: %q", body)
	}
	return nil
}

// sendFirst writes to the first connection, as soon as that is known.
func (r *Reader) sendFirst(ctx context.Context, frames []byte) error {
	r.mu.Lock()
	err := r.wait(ctx, func() bool { return r.first != nil && r.err == nil })
	r.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case r.out <- struct{}{}:
		defer func() { <-r.out }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := writeCut(ctx, r.first, frames); err != nil {
		return r.fail(fmt.Errorf("stream: answer the exporter: %w: %w", medium.ErrIncomplete, err))
	}
	return nil
}

// report tells the exporter what was released.
func (r *Reader) report() {
	for {
		r.mu.Lock()
		var frames []byte
		err := r.wait(context.Background(), func() bool {
			return r.first != nil && (r.bye || r.given-r.reported >= wire.Window/8 || r.flush >= 0 && r.released >= uint64(r.flush))
		})
		if err != nil {
			r.mu.Unlock()
			return
		}
		bye := r.bye
		if r.given != r.reported {
			frames = wire.AppendNumber(frames, wire.Credit, r.given)
			r.reported = r.given
		}
		if r.flush >= 0 && r.released >= uint64(r.flush) {
			frames = wire.AppendNumber(frames, wire.Ack, r.released)
			r.flush = -1
		}
		if bye {
			frames = wire.AppendHeader(frames, wire.Bye, 0)
		}
		r.mu.Unlock()
		if bye {
			r.farewell(frames)
			return
		}
		if r.sendFirst(context.Background(), frames) != nil {
			return
		}
	}
}

// farewell says Bye. Whether it arrives is the exporter's concern: all records
// are here.
func (r *Reader) farewell(frames []byte) {
	r.out <- struct{}{}
	defer func() { <-r.out }()
	_, _ = r.first.Write(frames)
}

// Tell is Peer's.
func (r *Reader) Tell(ctx context.Context, c record.Command) error {
	frame, err := wire.AppendCommand(nil, 0, c)
	if err != nil {
		return err
	}
	return r.sendFirst(ctx, frame)
}

// Command answers the manifest, once it has come. One with a receiver goes to
// the peer.
func (r *Reader) Command(ctx context.Context, c record.Command) (record.Command, error) {
	switch {
	case c.To != "":
		return r.call(ctx, c, r.sendFirst)
	case c.Verb != medium.VerbManifest:
		return record.Command{}, medium.Unsupported("stream", c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.wait(ctx, func() bool { return r.manifest != nil }); err != nil {
		return record.Command{}, err
	}
	return record.Command{Verb: c.Verb, Body: bytes.Clone(r.manifest)}, nil
}

// PushData refuses: this end imports.
func (r *Reader) PushData(context.Context, *record.Record) error {
	return fmt.Errorf("push to the importing end of a stream: %w", medium.ErrDirection)
}

// Flush has nothing to do.
func (r *Reader) Flush(context.Context) error { return nil }

// Close ends the connections; an exporter in the middle fails. One that has said
// Bye is given ours.
func (r *Reader) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return medium.ErrClosed
	}
	bye := r.bye
	r.mu.Unlock()
	if bye {
		select {
		case <-r.answered:
		case <-time.After(farewell):
		}
	}
	r.close()
	r.unpack.close()
	return nil
}

// unexpected: an end within a frame.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
