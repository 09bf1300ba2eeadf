// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"context"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

// Reader decrypts what is popped. It is a medium.Medium. Records come in the
// order of their numbers, which is that of the pushes.
type Reader struct {
	medium.Medium
	identities []age.Identity
	buffers    medium.Buffers

	// turn holds one token: who has it may use what follows.
	turn     chan struct{}
	aead     cipher.AEAD
	manifest []byte
	next     uint64
	early    map[uint64]*plaintext
	part     *plaintext
	records  uint64
	// ended: the record before was an end, which said count.
	ended bool
	count uint64
	err   error
}

// plaintext is a decrypted outer record.
type plaintext struct {
	kind    uint32
	number  uint64
	bytes   []byte
	release func()
}

// NewReader decrypts what m gives with one of the identities. It closes m when
// it is closed.
func NewReader(m medium.Medium, identities ...age.Identity) (*Reader, error) {
	if len(identities) == 0 {
		return nil, errors.New("decrypt: name at least one identity")
	}
	r := &Reader{Medium: m, identities: identities, turn: make(chan struct{}, 1), early: map[uint64]*plaintext{}}
	r.turn <- struct{}{}
	return r, nil
}

// Command answers the real manifest, which is the first record.
func (r *Reader) Command(ctx context.Context, c record.Command) (record.Command, error) {
	if c.To != "" || c.Verb != medium.VerbManifest {
		return r.Medium.Command(ctx, c)
	}
	if err := r.begin(ctx); err != nil {
		return record.Command{}, err
	}
	defer r.end()
	return record.Command{Verb: c.Verb, Body: r.manifest}, nil
}

// begin takes the turn and makes sure that key and manifest are there.
func (r *Reader) begin(ctx context.Context) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-r.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		if err != nil {
			r.end()
		}
	}()
	if r.err != nil {
		return r.err
	}
	if r.aead == nil {
		answer, err := r.Medium.Command(ctx, record.Command{Verb: medium.VerbManifest})
		if err != nil {
			return err
		}
		outer, err := image.UnmarshalManifest(answer.Body)
		if err != nil {
			return err
		}
		if r.aead, err = openKey(outer, r.identities); err != nil {
			return err
		}
	}
	if r.manifest == nil {
		p, err := r.pop(ctx)
		if err != nil {
			return r.fail(ctx, err)
		}
		defer p.release()
		if p.kind != kindManifest {
			return r.fail(ctx, fmt.Errorf("%w: record 0 is of kind %d", ErrForged, p.kind))
		}
		r.manifest = append([]byte{}, p.bytes...)
	}
	return nil
}

func (r *Reader) end() { r.turn <- struct{}{} }

// fail keeps err for later calls, unless it is only the caller's context.
func (r *Reader) fail(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		r.err = err
	}
	return err
}

// PopData returns the next record.
func (r *Reader) PopData(ctx context.Context) (*record.Record, func(), error) {
	if err := r.begin(ctx); err != nil {
		return nil, nil, err
	}
	defer r.end()
	for {
		p, err := r.pop(ctx)
		if err != nil {
			return nil, nil, r.fail(ctx, err)
		}
		done, err := r.admit(p)
		if err != nil {
			p.release()
			return nil, nil, r.fail(ctx, err)
		}
		if done == nil {
			continue
		}
		rec, err := decode(done.bytes)
		if err != nil {
			done.release()
			return nil, nil, r.fail(ctx, err)
		}
		return rec, done.release, nil
	}
}

// admit takes a decrypted record in its turn. It returns a whole inner record,
// or nil where there is none yet.
func (r *Reader) admit(p *plaintext) (*plaintext, error) {
	r.ended = false
	if r.part != nil && p.kind != kindRecord {
		return nil, fmt.Errorf("%w: number %d does not continue the one before", ErrForged, p.number)
	}
	switch p.kind {
	case kindVoid:
		p.release()
		return nil, nil
	case kindPart:
		r.part = p
		return nil, nil
	case kindEnd:
		if len(p.bytes) != 8 {
			return nil, fmt.Errorf("%w: number %d, an end, has %d bytes", image.ErrFormat, p.number, len(p.bytes))
		}
		r.ended, r.count = true, binary.LittleEndian.Uint64(p.bytes)
		p.release()
		return nil, nil
	case kindRecord:
		r.records++
		if r.part == nil {
			return p, nil
		}
		whole := &plaintext{}
		whole.bytes, whole.release = r.buffers.Get(len(r.part.bytes) + len(p.bytes))
		copy(whole.bytes[copy(whole.bytes, r.part.bytes):], p.bytes)
		r.part.release()
		r.part = nil
		p.release()
		return whole, nil
	}
	return nil, fmt.Errorf("%w: number %d is of kind %d", ErrForged, p.number, p.kind)
}

// pop returns the decrypted record with the next number. Records that come
// early are decrypted and kept, which gives their room in the medium back.
func (r *Reader) pop(ctx context.Context) (*plaintext, error) {
	for {
		if p := r.early[r.next]; p != nil {
			delete(r.early, r.next)
			r.next++
			return p, nil
		}
		rec, release, err := r.Medium.PopData(ctx)
		if err == io.EOF && (!r.ended || r.count != r.records || len(r.early) > 0) {
			err = fmt.Errorf("%w: %w: the medium ended at number %d", ErrForged, medium.ErrIncomplete, r.next)
		}
		if err != nil {
			return nil, err
		}
		p, err := r.open(rec)
		release()
		if err != nil {
			return nil, err
		}
		if p.number < r.next || p.number >= r.next+window || r.early[p.number] != nil {
			p.release()
			return nil, fmt.Errorf("%w: number %d came where %d belongs", ErrForged, p.number, r.next)
		}
		r.early[p.number] = p
	}
}

func (r *Reader) open(rec *record.Record) (*plaintext, error) {
	buf, release := r.buffers.Get(len(rec.Payload))
	plain, err := open(r.aead, buf, rec)
	if err != nil {
		release()
		return nil, err
	}
	return &plaintext{kind: rec.Kind, number: rec.Entity, bytes: plain, release: release}, nil
}

// decode splits an inner record. The payload's bytes stay where they are.
func decode(b []byte) (*record.Record, error) {
	e, end, err := image.DecodeBlock(b)
	if err != nil {
		return nil, err
	}
	if end != nil || e.Place.Lane != 0 || e.Length != len(b)-image.RecordHeaderSize {
		return nil, fmt.Errorf("%w: an inner record of %d bytes says %d", image.ErrFormat, len(b)-image.RecordHeaderSize, e.Length)
	}
	return e.Record(b[image.RecordHeaderSize:]), nil
}
