// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/wire"
)

// maxPulls bounds the pulls that are served at a time.
const maxPulls = 64

// Puller is the importer's end of a move's urgent connection. It outlives the
// connection: a pull waits until there is one, and is asked again over the next
// if one breaks.
type Puller struct {
	buffers medium.Buffers
	token   wire.Token
	work    sync.WaitGroup
	closing chan struct{}

	mu sync.Mutex
	// Below: guarded by mu.
	conn    net.Conn
	wanted  map[uint64]*pull
	next    uint64
	closed  bool
	changed chan struct{} // closed and replaced when conn changes
}

type pull struct {
	want record.Pull
	got  chan pulled // has room for one
}

type pulled struct {
	rec     *record.Record
	release func()
	err     error
}

// NewPuller makes one without a connection.
func NewPuller(token wire.Token) *Puller {
	return &Puller{token: token, wanted: map[uint64]*pull{}, closing: make(chan struct{}), changed: make(chan struct{})}
}

// Attach gives it a connection whose Hello was read. It ends an earlier one. The
// connection is the Puller's.
func (p *Puller) Attach(conn net.Conn) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = conn.Close()
		return
	}
	old := p.conn
	p.conn = conn
	var frames []byte
	for number, w := range p.wanted {
		frames = wire.AppendPull(frames, number, w.want)
	}
	close(p.changed)
	p.changed = make(chan struct{})
	p.work.Add(1)
	p.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	go func() {
		defer p.work.Done()
		_, err := conn.Write(frames)
		for err == nil {
			err = p.receive(conn)
		}
		_ = conn.Close()
		p.mu.Lock()
		if p.conn == conn {
			p.conn = nil
		}
		p.mu.Unlock()
	}()
}

// Attached reports whether there is a connection.
func (p *Puller) Attached() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn != nil
}

// Pull returns the record that the exporter's subsystem answered with, which the
// caller verifies; its payload is valid until release is called, exactly once.
// It waits for a connection as long as ctx allows.
func (p *Puller) Pull(ctx context.Context, want record.Pull) (*record.Record, func(), error) {
	w := &pull{want: want, got: make(chan pulled, 1)}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, nil, medium.ErrClosed
	}
	p.next++
	number := p.next
	p.wanted[number] = w
	conn := p.conn
	p.mu.Unlock()
	if conn != nil {
		// A connection that comes meanwhile is asked, too; one answer counts.
		if _, err := conn.Write(wire.AppendPull(nil, number, want)); err != nil {
			_ = conn.Close()
		}
	}
	select {
	case got := <-w.got:
		return got.rec, got.release, got.err
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.wanted, number)
		p.mu.Unlock()
		select {
		case got := <-w.got: // it came at the same moment
			if got.release != nil {
				got.release()
			}
		default:
		}
		return nil, nil, ctx.Err()
	case <-p.closing:
		return nil, nil, medium.ErrClosed
	}
}

// receive takes one answer.
func (p *Puller) receive(conn net.Conn) error {
	t, n, err := readFrame(conn)
	if err != nil {
		return err
	}
	if t == wire.Answer {
		body, err := readBody(conn, n)
		if err != nil {
			return err
		}
		number, text, failed, err := wire.DecodeAnswer(body)
		if err == nil && !failed {
			err = fmt.Errorf("%w: a pull was answered without a record", wire.ErrProtocol)
		}
		if err != nil {
			return err
		}
		if w := p.answer(number); w != nil {
			w.got <- pulled{err: &RemoteError{To: w.want.Subsystem, Verb: "pull", Text: string(text)}}
		}
		return nil
	}
	if t != wire.Pulled {
		return fmt.Errorf("%w: frame %d on an urgent connection", wire.ErrProtocol, t)
	}
	var head [wire.RecordHead]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	number, e, err := wire.DecodeRecord(head[:], n)
	if err != nil {
		return err
	}
	buf, release := p.buffers.Get(e.Length)
	if _, err := io.ReadFull(conn, buf); err != nil {
		release()
		return err
	}
	w := p.answer(number)
	switch {
	case w == nil: // asked twice, or nobody waits any more
		release()
	case w.want.Subsystem != e.Header.Subsystem || w.want.Process != e.Header.Process:
		release()
		w.got <- pulled{err: fmt.Errorf("%w: %s answers a pull of %s of process %d", wire.ErrProtocol, e.Header, w.want.Subsystem, w.want.Process)}
	default:
		w.got <- pulled{rec: e.Record(buf), release: release}
	}
	return nil
}

func (p *Puller) answer(number uint64) *pull {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.wanted[number]
	delete(p.wanted, number)
	return w
}

// Close ends the connection and every pull.
func (p *Puller) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return medium.ErrClosed
	}
	p.closed = true
	close(p.closing)
	conn := p.conn
	p.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
	p.work.Wait()
	return nil
}

// PullHandler returns the sealed record that answers a pull. Its payload stays
// as it is until done is called.
type PullHandler func(ctx context.Context, want record.Pull) (r *record.Record, done func(), err error)

// ServePulls is the exporter's end of an urgent connection, which it owns: it
// greets and serves until the connection or ctx ends. A nil error is the peer's
// end of a whole frame. The caller may serve another connection then.
func ServePulls(ctx context.Context, token wire.Token, conn net.Conn, h PullHandler) error {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var out sync.Mutex
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	if _, err := conn.Write(wire.Greeting{Count: 1, Purpose: wire.Urgent, Token: token}.Append(nil)); err != nil {
		return fmt.Errorf("urgent connection: %w", err)
	}
	slots := make(chan struct{}, maxPulls)
	for {
		number, want, err := readPull(conn)
		if err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("urgent connection: %w", err)
		}
		slots <- struct{}{} // back-pressure: the peer's next pull waits in its socket
		work.Go(func() {
			defer func() { <-slots }()
			r, done, err := h(ctx, want)
			var parts [][]byte
			if err != nil {
				parts = [][]byte{wire.AppendAnswer(nil, number, nil, err)}
			} else {
				parts = [][]byte{wire.AppendPulled(nil, number, r), r.Payload}
			}
			out.Lock()
			werr := writeCut(ctx, conn, parts...)
			out.Unlock()
			if err == nil && done != nil {
				done()
			}
			if werr != nil {
				_ = conn.Close()
			}
		})
	}
}

func readPull(conn net.Conn) (uint64, record.Pull, error) {
	t, n, err := readFrame(conn)
	if err != nil {
		return 0, record.Pull{}, err
	}
	if t != wire.Pull {
		return 0, record.Pull{}, fmt.Errorf("%w: frame %d on an urgent connection", wire.ErrProtocol, t)
	}
	body, err := readBody(conn, n)
	if err != nil {
		return 0, record.Pull{}, err
	}
	return wire.DecodePull(body)
}
