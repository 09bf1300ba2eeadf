// SPDX-License-Identifier: Apache-2.0

// Package pipe is the medium that stays in memory: what one end pushes, the
// other pops. It is bounded, so a slow reader slows the writer down.
package pipe

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/record"
)

// DefaultBound is the payload that a pipe holds by default, in bytes.
const DefaultBound = 16 << 20

// overhead is what a record costs beside its payload, so that empty records
// are bounded too.
const overhead = 256

// New makes a pipe that holds up to bound bytes of records, popped ones
// included until their release. At least one record always fits.
func New(bound int) (w, r medium.Medium) {
	p := &pipe{bound: bound, changed: make(chan struct{})}
	return &writer{p}, &reader{p}
}

// pipe is the state that both ends share.
type pipe struct {
	buffers medium.Buffers
	bound   int

	mu sync.Mutex
	// changed is closed and replaced at every change that somebody may wait for.
	changed  chan struct{}
	queue    []item
	held     int // bytes in the queue and in the hands of the reader
	manifest []byte
	// flushed: nothing was pushed since the last Flush.
	flushed, writerGone, readerGone bool
}

type item struct {
	rec     record.Record
	release func()
}

func (p *pipe) broadcast() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait sleeps until ready, called with the lock held, says so or ctx ends. It
// returns with the lock held in either case.
func (p *pipe) wait(ctx context.Context, ready func() bool) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if ready() {
			return nil
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		p.mu.Lock()
	}
}

type writer struct{ p *pipe }

// PushData copies the record into the pipe, and waits for room.
func (w *writer) PushData(ctx context.Context, r *record.Record) error {
	p, size := w.p, len(r.Payload)+overhead
	p.mu.Lock()
	err := p.wait(ctx, func() bool { return p.readerGone || p.writerGone || p.held == 0 || p.held+size <= p.bound })
	if err == nil {
		err = p.broken("push")
	}
	if err != nil {
		p.mu.Unlock()
		return err
	}
	p.held += size
	p.flushed = false
	p.mu.Unlock()

	// The copy is made without the lock. The order of overlapping pushes is open.
	buf, release := p.buffers.Get(len(r.Payload))
	copy(buf, r.Payload)
	it := item{rec: record.Record{Header: r.Header, Sum: r.Sum, Payload: buf}, release: release}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, it)
	p.broadcast()
	return nil
}

// broken is called with the lock held.
func (p *pipe) broken(what string) error {
	switch {
	case p.writerGone:
		return fmt.Errorf("%s: pipe: %w", what, medium.ErrClosed)
	case p.readerGone:
		return fmt.Errorf("%s: pipe: the reader is gone: %w", what, io.ErrClosedPipe)
	}
	return nil
}

// Flush waits until everything was popped and released.
func (w *writer) Flush(ctx context.Context) error {
	p := w.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.manifest == nil {
		return fmt.Errorf("flush: pipe: %w", medium.ErrNoManifest)
	}
	if err := p.wait(ctx, func() bool { return p.readerGone || p.writerGone || p.held == 0 }); err != nil {
		return err
	}
	if !p.flushed {
		if err := p.broken("flush"); err != nil {
			return err
		}
	}
	p.flushed = true
	return nil
}

// Command takes the manifest.
func (w *writer) Command(_ context.Context, c record.Command) (record.Command, error) {
	if c.To != "" || c.Verb != medium.VerbManifest {
		return record.Command{}, medium.Unsupported("pipe", c)
	}
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.p.manifest = bytes.Clone(c.Body)
	w.p.broadcast()
	return record.Command{Verb: c.Verb}, nil
}

func (w *writer) PopData(context.Context) (*record.Record, func(), error) {
	return nil, nil, fmt.Errorf("pop from the writing end of a pipe: %w", medium.ErrDirection)
}

func (w *writer) Close() error {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if w.p.writerGone {
		return medium.ErrClosed
	}
	w.p.writerGone = true
	w.p.broadcast()
	return nil
}

type reader struct{ p *pipe }

// PopData takes the next record; its room in the pipe is free after release.
func (r *reader) PopData(ctx context.Context) (*record.Record, func(), error) {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.wait(ctx, func() bool { return len(p.queue) > 0 || p.writerGone || p.readerGone }); err != nil {
		return nil, nil, err
	}
	switch {
	case p.readerGone:
		return nil, nil, fmt.Errorf("pop: pipe: %w", medium.ErrClosed)
	case len(p.queue) == 0 && p.flushed:
		return nil, nil, io.EOF
	case len(p.queue) == 0:
		return nil, nil, fmt.Errorf("pop: pipe: the writer closed: %w", medium.ErrIncomplete)
	}
	it := p.queue[0]
	p.queue[0] = item{}
	p.queue = p.queue[1:]
	size := len(it.rec.Payload) + overhead
	return &it.rec, func() {
		it.release()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held -= size
		p.broadcast()
	}, nil
}

// Command answers the manifest, once the writer has given it.
func (r *reader) Command(ctx context.Context, c record.Command) (record.Command, error) {
	if c.To != "" || c.Verb != medium.VerbManifest {
		return record.Command{}, medium.Unsupported("pipe", c)
	}
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.wait(ctx, func() bool { return p.manifest != nil || p.writerGone }); err != nil {
		return record.Command{}, err
	}
	if p.manifest == nil {
		return record.Command{}, fmt.Errorf("pipe: %w", medium.ErrNoManifest)
	}
	return record.Command{Verb: c.Verb, Body: bytes.Clone(p.manifest)}, nil
}

func (r *reader) PushData(context.Context, *record.Record) error {
	return fmt.Errorf("push to the reading end of a pipe: %w", medium.ErrDirection)
}

func (r *reader) Flush(context.Context) error { return nil }

func (r *reader) Close() error {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if r.p.readerGone {
		return medium.ErrClosed
	}
	r.p.readerGone = true
	r.p.broadcast()
	return nil
}
