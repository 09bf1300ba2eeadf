// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

// Reader reads one image. It is a medium.Medium.
type Reader struct {
	image   *Image
	buffers medium.Buffers

	mu     sync.Mutex
	stream *image.Reader
	closed bool
}

// NewReader opens the image in a directory.
func NewReader(path string) (*Reader, error) {
	i, err := OpenImage(path)
	if err != nil {
		return nil, err
	}
	stream, err := i.reader()
	if err != nil {
		_ = i.Close()
		return nil, i.wrap(err)
	}
	return &Reader{image: i, stream: stream, buffers: medium.Buffers{Bounded: true}}, nil
}

// PopData returns the next record. Callers share the state file in turn; large
// payloads are read from their lanes at the same time.
func (d *Reader) PopData(ctx context.Context) (*record.Record, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	e, buf, release, err := d.next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, io.EOF
		}
		return nil, nil, d.image.wrap(err)
	}
	r := e.Record(buf)
	r.From = record.Place{File: image.StateName, Number: e.Number, Offset: e.Offset}
	if e.Place.Lane == 0 {
		return r, release, nil
	}
	r.From.File, r.From.Offset = image.PagesName(e.Place.Lane), e.Place.Offset
	if err := image.ReadLane(d.image.lanes[e.Place.Lane-1], &e, buf); err != nil {
		release()
		return nil, nil, d.image.wrap(d.stream.Defect(&e, err))
	}
	return r, release, nil
}

// next takes the next header and, where it lies in the state file, the payload.
func (d *Reader) next() (image.Entry, []byte, func(), error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return image.Entry{}, nil, nil, medium.ErrClosed
	}
	e, err := d.stream.Next()
	if errors.Is(err, io.EOF) {
		if incomplete := d.image.complete(d.stream.End()); incomplete != nil {
			err = incomplete
		}
	}
	if err != nil {
		return e, nil, nil, err
	}
	// The length has been checked against limits and the file's size.
	buf, release := d.buffers.Get(e.Length)
	if e.Place.Lane == 0 {
		if err := d.stream.Payload(buf); err != nil {
			release()
			return e, nil, nil, err
		}
	}
	return e, buf, release, nil
}

// PushData refuses: an image that is read does not change.
func (d *Reader) PushData(context.Context, *record.Record) error {
	return fmt.Errorf("push to the image being read from %s: %w", d.image.dir.path, medium.ErrDirection)
}

// Flush has nothing to do.
func (d *Reader) Flush(context.Context) error { return nil }

// Command answers the manifest, with its list of files.
func (d *Reader) Command(_ context.Context, c record.Command) (record.Command, error) {
	if c.To != "" || c.Verb != medium.VerbManifest {
		return record.Command{}, medium.Unsupported("directory", c)
	}
	body, err := d.image.manifest.Marshal()
	return record.Command{Verb: c.Verb, Body: body}, err
}

// Close closes the image's files. Buffers still lent out stay valid.
func (d *Reader) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return medium.ErrClosed
	}
	d.closed = true
	return d.image.Close()
}
