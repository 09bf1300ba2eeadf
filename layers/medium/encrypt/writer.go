// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"context"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"filippo.io/age"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

// Writer encrypts what is pushed. It is a medium.Medium. The command with the
// manifest must come before the first push.
type Writer struct {
	medium.Medium
	recipients []age.Recipient
	buffers    medium.Buffers

	mu   sync.Mutex
	aead cipher.AEAD // nil until the manifest came
	tickets
	records uint64
	// ended: the record of highest number is an end.
	ended bool
}

// NewWriter encrypts into m for the recipients. It closes m when it is closed.
func NewWriter(m medium.Medium, recipients ...age.Recipient) (*Writer, error) {
	if len(recipients) == 0 {
		return nil, errors.New("encrypt: name at least one recipient")
	}
	return &Writer{Medium: m, recipients: recipients, tickets: newTickets()}, nil
}

// Command takes the manifest: the medium gets an outer one that tells little,
// and the real one as record 0.
func (w *Writer) Command(ctx context.Context, c record.Command) (record.Command, error) {
	if c.To != "" || c.Verb != medium.VerbManifest {
		return w.Medium.Command(ctx, c)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.aead != nil {
		return record.Command{}, errors.New("encrypt: the manifest was given already")
	}
	inner, err := image.UnmarshalManifest(c.Body)
	if err != nil {
		return record.Command{}, err
	}
	aead, key, err := newKey(w.recipients)
	if err != nil {
		return record.Command{}, err
	}
	outer := image.Manifest{Created: inner.Created, Architecture: inner.Architecture, PageSize: inner.PageSize,
		Subsystems: []image.Subsystem{{Name: Subsystem, Version: 1}}, Encryption: key}
	body, err := outer.Marshal()
	if err != nil {
		return record.Command{}, err
	}
	answer, err := w.Medium.Command(ctx, record.Command{Verb: c.Verb, Body: body})
	if err != nil {
		return answer, err
	}
	r, err := seal(aead, kindManifest, 0, append(make([]byte, 0, len(c.Body)+tagSize), c.Body...))
	if err == nil {
		err = w.Medium.PushData(ctx, r)
	}
	if err != nil {
		return answer, fmt.Errorf("encrypt: push the manifest: %w", err)
	}
	w.aead = aead
	return answer, nil
}

// PushData encrypts and pushes; one copy is made of the payload.
func (w *Writer) PushData(ctx context.Context, r *record.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e := image.Entry{Header: r.Header, Sum: r.Sum, Length: len(r.Payload)}
	if err := e.Valid(); err != nil {
		return err
	}
	buf, release := w.buffers.Get(image.RecordHeaderSize + len(r.Payload) + tagSize)
	defer release()
	plain := append(e.Append(buf[:0]), r.Payload...)
	if len(plain) <= maxPlain {
		return w.push(ctx, kindRecord, plain, nil)
	}
	// The tag of the first part needs room that the second one occupies.
	rest := append(make([]byte, 0, len(plain)-maxPlain+tagSize), plain[maxPlain:]...)
	return w.push(ctx, kindPart, plain[:maxPlain], rest)
}

// push gives plain the next number and pushes it, and rest, if any, as the
// record's second part with the number after it.
func (w *Writer) push(ctx context.Context, kind uint32, plain, rest []byte) error {
	count := uint64(1)
	if rest != nil {
		count = 2
	}
	first, err := w.take(ctx, count, func() { w.records++; w.ended = false })
	if err != nil {
		return err
	}
	if err := w.sealed(ctx, kind, first, plain); err != nil {
		w.drop(first, count)
		return err
	}
	w.finish(first)
	if rest == nil {
		return nil
	}
	// Half a record cannot be taken back: the rest must go through, too.
	if err := w.sealed(context.WithoutCancel(ctx), kindRecord, first+1, rest); err != nil {
		return err
	}
	w.finish(first + 1)
	return nil
}

func (w *Writer) sealed(ctx context.Context, kind uint32, number uint64, plain []byte) error {
	r, err := seal(w.aead, kind, number, plain)
	if err != nil {
		return err
	}
	return w.Medium.PushData(ctx, r)
}

// take reserves count numbers, when the window lets it. Numbers that failed
// pushes left are filled first.
func (w *Writer) take(ctx context.Context, count uint64, taken func()) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.aead == nil {
		return 0, fmt.Errorf("encrypt: %w: it must come before the first record", medium.ErrNoManifest)
	}
	for {
		if err := w.fill(ctx); err != nil {
			return 0, err
		}
		if w.next+count-w.low <= window {
			first := w.next
			w.next += count
			taken()
			return first, nil
		}
		changed := w.changed
		w.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		w.mu.Lock()
		if err != nil {
			return 0, err
		}
	}
}

// fill pushes a void record for every dropped number. It holds the lock.
func (w *Writer) fill(ctx context.Context) error {
	for len(w.dropped) > 0 {
		number := w.dropped[0]
		if err := w.sealed(ctx, kindVoid, number, make([]byte, 0, tagSize)); err != nil {
			return err
		}
		w.dropped = w.dropped[1:]
		w.done(number)
	}
	return nil
}

func (w *Writer) finish(number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done(number)
}

// drop gives numbers back whose record was not pushed.
func (w *Writer) drop(first, count uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := first; n < first+count; n++ {
		w.dropped = append(w.dropped, n)
	}
	w.records--
	w.ended = false // an end that overlapped has counted it
	w.wake()
}

// Flush seals the number of records, then flushes the medium.
func (w *Writer) Flush(ctx context.Context) error {
	w.mu.Lock()
	ended := w.ended
	w.mu.Unlock()
	if !ended {
		var records uint64
		number, err := w.take(ctx, 1, func() { records, w.ended = w.records, true })
		if err != nil {
			return err
		}
		plain := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+tagSize), records)
		if err := w.sealed(ctx, kindEnd, number, plain); err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.dropped, w.ended = append(w.dropped, number), false
			w.wake()
			return err
		}
		w.finish(number)
	}
	return w.Medium.Flush(ctx)
}

// tickets numbers records and knows which numbers are still under way.
type tickets struct {
	next uint64
	// low is the lowest number that is not done; early are done ones above it.
	low     uint64
	early   map[uint64]bool
	dropped []uint64
	changed chan struct{}
}

// newTickets begins with 1: 0 is the manifest.
func newTickets() tickets {
	return tickets{next: 1, low: 1, early: map[uint64]bool{}, changed: make(chan struct{})}
}

func (t *tickets) done(number uint64) {
	t.early[number] = true
	for t.early[t.low] {
		delete(t.early, t.low)
		t.low++
	}
	t.wake()
}

func (t *tickets) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}
