// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// A record's payload is read by whoever has popped it, straight into the buffer
// that it is imported from: so a payload is checked and imported by the processor
// that has it in its cache, and the connections' own goroutines, which would have
// to hand it over, only look at what comes. A record for which nobody comes within
// patience is read by its connection, whose commands must not wait behind it.
const patience = 2 * time.Millisecond

// pieceBytes is what is read before it is added to the checksum: it stays in the
// second-level cache.
const pieceBytes = 128 << 10

// arrival is a record of which the head has come.
type arrival struct {
	conn  net.Conn
	index int // of the connection
	t     wire.Type
	n     int // bytes that follow the head
	seq   uint64
	entry image.Entry

	// taken: somebody reads the payload. Guarded by the reader's mu.
	taken bool
	// read is closed when the payload was read, or could not be.
	read chan struct{}
	// Below: written before read is closed.
	rec     *record.Record
	release func()
	err     error
}

// record takes a record's head and returns when its payload was read.
func (r *Reader) record(conn net.Conn, index int, t wire.Type, n int) error {
	var head [wire.RecordHead]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return unexpected(err)
	}
	decode := wire.DecodeRecord
	if t == wire.Compressed {
		decode = wire.DecodeCompressed
	}
	seq, e, err := decode(head[:], n)
	if err != nil {
		return err
	}
	a := &arrival{conn: conn, index: index, t: t, n: n - wire.RecordHead, seq: seq, entry: e, read: make(chan struct{})}
	if err := r.admit(a); err != nil {
		return err
	}
	if a.entry.Length <= smallRecord { // it has come already, most likely: nobody else has to be woken for that
		a.taken = true
		r.payload(context.Background(), a)
		if _, err := r.announce(a); err != nil {
			return err
		}
		return a.err
	}
	hurry, err := r.announce(a)
	if err != nil {
		return err
	}
	if !hurry {
		r.await(a)
	}
	if r.take(a) {
		r.payload(context.Background(), a)
	}
	select {
	case <-a.read:
		return a.err
	case <-r.live.Done(): // popped, and never asked for
		return context.Cause(r.live)
	}
}

// admit counts a record that there is room for.
func (r *Reader) admit(a *arrival) error {
	size := uint64(a.entry.Length + wire.RecordOverhead)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held+size > wire.Window {
		return fmt.Errorf("%w: record %d: %d bytes with %d held of a window of %d", wire.ErrProtocol, a.seq, size, r.held, wire.Window)
	}
	r.held += size
	return nil
}

// announce gives a record its place in the stream. hurry: nobody comes for
// records.
func (r *Reader) announce(a *arrival) (hurry bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.seq < r.next || r.ready[a.seq] != nil {
		return false, fmt.Errorf("%w: record %d is there already, next is %d", wire.ErrProtocol, a.seq, r.next)
	}
	r.ready[a.seq] = a
	r.broadcast()
	return r.hurry, nil
}

// await gives others some time to take a record.
func (r *Reader) await(a *arrival) {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-a.read:
	case <-r.live.Done():
	case <-t.C:
		r.mu.Lock()
		r.hurry = r.hurry || !a.taken
		r.mu.Unlock()
	}
}

// take makes the caller the one who reads the payload, unless somebody does.
func (r *Reader) take(a *arrival) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	mine := !a.taken
	a.taken = true
	return mine
}

// payload reads the payload of a record that the caller has taken. The end of
// ctx cuts it short, which breaks the stream.
func (r *Reader) payload(ctx context.Context, a *arrival) {
	defer close(a.read)
	buf, release := r.buffers.Get(a.entry.Length)
	rec := a.entry.Record(buf)
	err := cutBy(ctx, a.conn.SetReadDeadline, func() error { return r.read(a, rec) })
	if err != nil {
		release()
		a.err = err
		return
	}
	a.rec, a.release = rec, release
}

// read fills a record's payload.
func (r *Reader) read(a *arrival, rec *record.Record) error {
	if a.t == wire.Record {
		sum := rec.Header.Summer(len(rec.Payload))
		for rest := rec.Payload; len(rest) > 0; {
			piece := rest[:min(len(rest), pieceBytes)]
			if _, err := io.ReadFull(a.conn, piece); err != nil {
				return unexpected(err)
			}
			sum.Add(piece)
			rest = rest[len(piece):]
		}
		rec.Summed(sum)
		return nil
	}
	packed, release := r.buffers.Get(a.n)
	defer release()
	if _, err := io.ReadFull(a.conn, packed); err != nil {
		return unexpected(err)
	}
	return r.unpack.unpack(packed, rec.Payload)
}

// PopHead returns the header of the next record. load, which the caller has to
// call once, returns the record as PopData does; the next record can be popped
// meanwhile. A load whose context ends in the middle of the payload breaks the
// stream.
func (r *Reader) PopHead(ctx context.Context) (h record.Header, load func(context.Context) (*record.Record, func(), error), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.wait(ctx, r.poppable); err != nil {
		return h, nil, err
	}
	a := r.ready[r.next]
	if a == nil {
		if len(r.ready) > 0 {
			return h, nil, fmt.Errorf("stream: %w: record %d is missing", medium.ErrIncomplete, r.next)
		}
		return h, nil, io.EOF
	}
	delete(r.ready, r.next)
	r.next++
	mine := !a.taken
	a.taken = true
	return a.entry.Header, func(ctx context.Context) (*record.Record, func(), error) { return r.load(ctx, a, mine) }, nil
}

// poppable reports whether PopHead has an answer. Called with the lock held.
func (r *Reader) poppable() bool {
	if r.ready[r.next] == nil && !r.bye {
		r.hurry = false // somebody waits
		return false
	}
	return !r.closed
}

// load reads a popped record's payload, or waits until its connection has.
func (r *Reader) load(ctx context.Context, a *arrival, mine bool) (*record.Record, func(), error) {
	if mine {
		r.payload(ctx, a)
	}
	select {
	case <-a.read: // whatever has happened since
	default:
		select {
		case <-a.read:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-r.live.Done():
			return nil, nil, context.Cause(r.live)
		}
	}
	if a.err != nil {
		err := r.broken(a.conn, a.index, a.err)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, err
	}
	return a.rec, func() { a.release(); r.gone(a) }, nil
}

// gone gives back the window of a record that was released.
func (r *Reader) gone(a *arrival) {
	size := uint64(a.entry.Length + wire.RecordOverhead)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held -= size
	r.given += size
	r.early[a.seq] = true
	for r.early[r.released] {
		delete(r.early, r.released)
		r.released++
	}
	r.broadcast()
}

// PopData returns the next record; its window is given back at release.
func (r *Reader) PopData(ctx context.Context) (*record.Record, func(), error) {
	_, load, err := r.PopHead(ctx)
	if err != nil {
		return nil, nil, err
	}
	return load(ctx)
}
