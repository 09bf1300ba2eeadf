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
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// Writer is the exporter's end. It is a medium.Medium.
type Writer struct {
	core
	pack compressor
	// free connections; who has received a number may write to that one.
	free chan int
	// small are frames of small records that nobody has sent yet: see gathered.
	small    []byte
	gathered chan struct{} // has room for one
	next     uint64        // sequence number of the next record
	sent     uint64        // window spent since the start
	credit   uint64        // window given back since the start
	acked    uint64        // records that the importer has released
	answered bool          // some Ack came
	flushed  bool          // nothing was pushed since the last Flush
	// abandoned: see Abandon.
	abandoned bool
}

// NewWriter begins a stream. It owns the connections, whose other ends are
// given to NewReader in any order.
func NewWriter(o Options, conns ...net.Conn) (*Writer, error) {
	w := &Writer{free: make(chan int, len(conns)), gathered: make(chan struct{}, 1)}
	if err := w.init(o, conns); err != nil {
		return nil, err
	}
	w.pack.policy = o.Compress
	for i, conn := range conns {
		g := wire.Greeting{Index: i, Count: len(conns), Purpose: wire.Data, Token: o.Token}
		if _, err := conn.Write(g.Append(nil)); err != nil {
			return nil, w.fail(fmt.Errorf("stream: hello: %w", err))
		}
		w.free <- i
	}
	w.work.Go(w.listen)
	w.work.Go(w.sendGathered)
	return w, nil
}

// PushData sends a record, once the importer has room for it.
func (w *Writer) PushData(ctx context.Context, r *record.Record) error {
	e := image.Entry{Header: r.Header, Sum: r.Sum, Length: len(r.Payload)}
	if err := e.Valid(); err != nil {
		return err
	}
	size := uint64(len(r.Payload) + wire.RecordOverhead)
	w.mu.Lock()
	err := w.wait(ctx, func() bool { return w.err == nil && w.sent+size-w.credit <= wire.Window })
	if err != nil {
		w.mu.Unlock()
		return err
	}
	w.sent += size
	w.flushed = false
	if len(r.Payload) <= smallRecord && len(w.small) <= smallRecords {
		w.gather(r)
		w.mu.Unlock()
		return nil
	}
	w.mu.Unlock()

	packed, done := w.pack.pack(r.Payload)
	defer done()
	i, err := w.take(ctx)
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.sent -= size
		w.broadcast()
		return err
	}
	defer func() { w.free <- i }()
	// With the connection in hand, so that numbers rise on each connection.
	w.mu.Lock()
	seq, before := w.next, w.takeSmall()
	w.next++
	w.mu.Unlock()
	start := time.Now()
	if packed == nil {
		packed = r.Payload
		err = w.send(ctx, i, wire.AppendRecord(before, seq, r), packed)
	} else {
		err = w.send(ctx, i, wire.AppendCompressed(before, seq, r, len(packed)), packed)
	}
	w.pack.wrote(len(packed), time.Since(start))
	return err
}

func (w *Writer) take(ctx context.Context) (int, error) {
	select {
	case i := <-w.free:
		return i, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// send writes parts as one. A frame that was cut short by ctx breaks the stream.
func (w *Writer) send(ctx context.Context, i int, parts ...[]byte) error {
	conn := w.conns[i]
	err := writeCut(ctx, conn, parts...)
	if err == nil {
		return nil
	}
	return w.fail(fmt.Errorf("stream: send on connection %d to %s: %w", i, conn.RemoteAddr(), err))
}

// sendFirst sends on connection 0, where everything but records goes.
func (w *Writer) sendFirst(ctx context.Context, frame []byte) error {
	var others []int
	defer func() {
		for _, i := range others {
			w.free <- i
		}
	}()
	for {
		i, err := w.take(ctx)
		if err != nil {
			return err
		}
		others = append(others, i)
		if i == 0 {
			w.mu.Lock()
			before := w.takeSmall()
			w.mu.Unlock()
			return w.send(ctx, 0, append(before, frame...))
		}
	}
}

// Flush returns when the importer has released every record.
func (w *Writer) Flush(ctx context.Context) error {
	w.mu.Lock()
	records := w.next
	err := w.err
	if err == nil && w.manifest == nil {
		err = fmt.Errorf("flush: stream: %w", medium.ErrNoManifest)
	}
	w.mu.Unlock()
	if err != nil {
		return err
	}
	if err := w.sendFirst(ctx, wire.AppendNumber(nil, wire.Flush, records)); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.wait(ctx, func() bool { return w.answered && w.acked >= records }); err != nil {
		return err
	}
	w.flushed = w.next == records
	return nil
}

// Tell is Peer's.
func (w *Writer) Tell(ctx context.Context, c record.Command) error {
	frame, err := wire.AppendCommand(nil, 0, c)
	if err != nil {
		return err
	}
	return w.sendFirst(ctx, frame)
}

// Command takes the manifest and sends it. One with a receiver goes to the peer.
func (w *Writer) Command(ctx context.Context, c record.Command) (record.Command, error) {
	switch {
	case c.To != "":
		return w.call(ctx, c, w.sendFirst)
	case c.Verb != medium.VerbManifest:
		return record.Command{}, medium.Unsupported("stream", c)
	}
	if len(c.Body) > image.MaxManifest {
		return record.Command{}, fmt.Errorf("stream: a manifest of %d bytes, the limit is %d", len(c.Body), image.MaxManifest)
	}
	body := bytes.Clone(c.Body)
	if err := w.sendFirst(ctx, append(wire.AppendHeader(nil, wire.Manifest, len(body)), body...)); err != nil {
		return record.Command{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.manifest = body
	return record.Command{Verb: c.Verb}, nil
}

// PopData refuses: this end exports.
func (w *Writer) PopData(context.Context) (*record.Record, func(), error) {
	return nil, nil, fmt.Errorf("pop from the exporting end of a stream: %w", medium.ErrDirection)
}

// Abandon has Close cut the stream off, though everything was flushed: whoever
// reads it must not take it for a whole one.
func (w *Writer) Abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.abandoned = true
}

// Close says Bye after a complete stream, and cuts off any other.
func (w *Writer) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return medium.ErrClosed
	}
	whole := w.flushed && w.err == nil && !w.abandoned
	w.mu.Unlock()
	var err error
	if whole {
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		if err = w.sendFirst(ctx, wire.AppendHeader(nil, wire.Bye, 0)); err == nil {
			// Closing with the peer's frames unread could reset the connection
			// before it has read ours: wait for its Bye.
			w.mu.Lock()
			err = w.wait(ctx, func() bool { return w.bye })
			w.mu.Unlock()
		}
	}
	w.close()
	if err != nil {
		return fmt.Errorf("stream: close: %w", err)
	}
	return nil
}

// listen takes the importer's frames.
func (w *Writer) listen() {
	defer w.finish()
	for {
		done, err := w.hear(w.conns[0])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("stream: the importer is gone: %w", io.ErrUnexpectedEOF)
			}
			_ = w.fail(err)
		}
		if done || err != nil {
			return
		}
	}
}

func (w *Writer) hear(conn net.Conn) (done bool, err error) {
	t, n, err := readFrame(conn)
	if err != nil {
		return false, err
	}
	switch t {
	case wire.Credit, wire.Ack, wire.Bye, wire.Failure, wire.Command, wire.Answer:
	default:
		return false, fmt.Errorf("%w: frame %d from the importer", wire.ErrProtocol, t)
	}
	body, err := readBody(conn, n)
	if err != nil {
		return false, err
	}
	if t == wire.Command || t == wire.Answer {
		return false, w.heard(t, body, w.sendFirst)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch t {
	case wire.Failure:
		return false, fmt.Errorf("stream: the importer failed: %q", body)
	case wire.Bye:
		w.bye = true
		done = true
	case wire.Credit:
		v := binary.LittleEndian.Uint64(body)
		if v < w.credit || v > w.sent {
			return false, fmt.Errorf("%w: credit %d after %d, of %d spent", wire.ErrProtocol, v, w.credit, w.sent)
		}
		w.credit = v
	case wire.Ack:
		v := binary.LittleEndian.Uint64(body)
		if v < w.acked || v > w.next {
			return false, fmt.Errorf("%w: ack of %d records after %d, of %d sent", wire.ErrProtocol, v, w.acked, w.next)
		}
		w.acked, w.answered = v, true
	}
	w.broadcast()
	return done, nil
}
