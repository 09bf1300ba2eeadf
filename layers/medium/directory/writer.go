// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

// Writer writes one image. It is a medium.Medium.
type Writer struct {
	dir     *folder
	options Options
	// free lanes; whoever has received one owns it. Order of locks: a lane,
	// then mu.
	free  chan *lane
	lanes []*lane
	path  string

	mu sync.Mutex
	// opened are the lanes that have a file, in the order of their numbers.
	opened   []*lane
	state    *stateFile
	stream   *image.Writer
	inline   image.File // counts of mig.state
	manifest *image.Manifest
	// index is the published manifest, nil while the image is incomplete.
	index *output
	err   error
}

// lane is one pages file. It has a number and a file from its first use on.
type lane struct {
	number int
	file   *output
	next   int64
	counts image.File
}

// Create begins an image in the directory path, which is made if missing. The
// directory must belong to the caller and be writable by nobody else. Nothing
// is visible in it before Flush.
func Create(path string, options Options) (*Writer, error) { return create(path, options, false) }

func create(path string, options Options, named bool) (*Writer, error) {
	dir, err := lockFolder(path)
	if err != nil {
		return nil, err
	}
	dir.named = named
	file, err := dir.create(image.StateName)
	if err != nil {
		dir.abandon()
		return nil, err
	}
	w := &Writer{dir: dir, path: path, options: options, state: &stateFile{file: file}}
	if w.stream, err = image.NewWriter(w.state); err != nil { // cannot fail: it is buffered
		_ = w.Close()
		return nil, err
	}
	n := options.lanes()
	w.free, w.lanes = make(chan *lane, n), make([]*lane, n)
	for i := range w.lanes {
		w.lanes[i] = &lane{next: image.PageAlign}
		w.free <- w.lanes[i]
	}
	return w, nil
}

// PushData writes a record. Large payloads are in the file when it returns,
// small ones in a buffer.
func (w *Writer) PushData(ctx context.Context, r *record.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(r.Payload) < Bulk {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.add(func() error {
			w.inline.Records++
			w.inline.Bytes += uint64(len(r.Payload))
			return w.stream.Append(r)
		})
	}
	l, err := w.take(ctx)
	if err != nil {
		return err
	}
	defer func() { w.free <- l }()
	return w.pushLane(l, r)
}

func (w *Writer) take(ctx context.Context) (*lane, error) {
	select {
	case l := <-w.free:
		return l, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pushLane writes the payload first and its header last: a header in the
// stream always refers to bytes that are there, and the order of the headers
// is the order in which the pushes ended.
func (w *Writer) pushLane(l *lane, r *record.Record) error {
	if err := w.open(l); err != nil {
		return w.fail(err)
	}
	at := image.Place{Lane: l.number, Offset: image.Start(l.next, len(r.Payload))}
	if err := l.file.write(r.Payload, at.Offset); err != nil {
		return w.fail(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.add(func() error {
		if err := w.stream.Refer(r, at); err != nil {
			return err
		}
		l.next = image.Align(at.Offset + int64(len(r.Payload)))
		l.counts.Records++
		l.counts.Bytes += uint64(len(r.Payload))
		return nil
	})
}

// open makes the lane's file at its first use.
func (w *Writer) open(l *lane) error {
	if l.file != nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	number := len(w.opened) + 1
	file, err := w.dir.create(image.PagesName(number))
	if err != nil {
		return err
	}
	head := image.FileHeader{Major: image.Major, Minor: image.Minor, Kind: image.KindPages, Lane: uint16(number)}
	if err := file.write(head.Append(nil), 0); err != nil {
		file.discard()
		return err
	}
	l.number, l.file = number, file
	w.opened = append(w.opened, l)
	return nil
}

// add runs one change of the stream, with mu held. An image that was complete
// is not while it grows.
func (w *Writer) add(change func() error) error {
	if w.err != nil {
		return w.err
	}
	if w.index != nil {
		w.index.discard()
		w.index = nil
	}
	if err := change(); err != nil {
		w.err = fmt.Errorf("image %s: %w", w.path, err)
	}
	return w.err
}

// fail makes err final and returns the first error there was.
func (w *Writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf("image %s: %w", w.path, err)
	}
	return w.err
}

// PopData refuses: a writer has nothing to give.
func (w *Writer) PopData(context.Context) (*record.Record, func(), error) {
	return nil, nil, fmt.Errorf("pop from the image being written to %s: %w", w.path, medium.ErrDirection)
}

// Command takes the manifest. Its list of files is ours to fill.
func (w *Writer) Command(_ context.Context, c record.Command) (record.Command, error) {
	if c.To != "" || c.Verb != medium.VerbManifest {
		return record.Command{}, medium.Unsupported("directory", c)
	}
	m, err := image.UnmarshalManifest(c.Body)
	if err != nil {
		return record.Command{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.manifest = m
	return record.Command{Verb: c.Verb}, nil
}

// stateFile buffers what goes to mig.state.
type stateFile struct {
	file *output
	pos  int64 // in the file, of the buffer's start
	buf  []byte
}

const stateBuffer = 256 << 10

var _ io.Writer = (*stateFile)(nil)

func (s *stateFile) Write(b []byte) (int, error) {
	if s.buf == nil {
		s.buf = make([]byte, 0, stateBuffer)
	}
	if len(s.buf)+len(b) > stateBuffer {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	s.buf = append(s.buf, b...)
	return len(b), nil
}

func (s *stateFile) flush() error {
	if err := s.file.write(s.buf, s.pos); err != nil {
		return err
	}
	s.pos += int64(len(s.buf))
	s.buf = s.buf[:0]
	return nil
}
