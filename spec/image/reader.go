// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/io-mig/mig/spec/record"
)

// Options say what a reader knows about the file before it reads.
type Options struct {
	// Name stands for the file in errors; "state" if empty.
	Name string
	// Size of the file in bytes, 0 if unknown. A known size is a limit for
	// payloads, and nothing may follow the end marker.
	Size int64
	// Lanes are the sizes of the pages files in bytes, lane 1 first. A record
	// that refers to another lane, or past its lane's size, is refused.
	Lanes []int64
	// Subsystems are those of the manifest; records of others are refused.
	// nil allows any.
	Subsystems []string
}

// Reader reads a state file. It is for one goroutine at a time. An error is
// final: every later call returns it.
type Reader struct {
	r      io.Reader
	o      Options
	pos    int64 // of the next unread byte
	unread int   // of the last entry's inline payload
	last   Entry
	end    End
	lanes  lanes
	block  [RecordHeaderSize]byte
	err    error
}

// NewReader reads the file header from r.
func NewReader(r io.Reader, o Options) (*Reader, error) {
	if o.Name == "" {
		o.Name = "state"
	}
	d := &Reader{r: r, o: o, last: Entry{Number: -1}}
	if n, err := io.ReadFull(r, d.block[:FileHeaderSize]); err != nil {
		return nil, d.fail(-1, 0, short(err, n, FileHeaderSize, "file header"))
	}
	h, err := DecodeFileHeader(d.block[:FileHeaderSize])
	if err == nil {
		err = h.Expect(KindState, 0)
	}
	if err != nil {
		return nil, d.fail(-1, 0, err)
	}
	d.pos = FileHeaderSize
	return d, nil
}

// Next returns the next record's header, and io.EOF after the last record of
// a whole stream. A payload that was not read is skipped.
func (d *Reader) Next() (Entry, error) {
	if d.err != nil {
		return Entry{}, d.err
	}
	if err := d.skip(); err != nil {
		return Entry{}, err
	}
	number, at := int64(d.end.Records), d.pos
	if n, err := io.ReadFull(d.r, d.block[:]); err != nil {
		return Entry{}, d.fail(number, at, short(err, n, RecordHeaderSize, "record header or end marker"))
	}
	e, end, err := DecodeBlock(d.block[:])
	if err != nil {
		return Entry{}, d.fail(number, at, err)
	}
	d.pos += RecordHeaderSize
	if end != nil {
		return Entry{}, d.finish(*end, at)
	}
	e.Number, e.Offset = number, at
	if err := d.admit(&e); err != nil {
		return Entry{}, d.fail(number, at, err)
	}
	d.end.add(d.block[:], e.Length)
	d.last = e
	if e.Place.Lane == 0 {
		d.unread = e.Length
	}
	return e, nil
}

// Payload reads the payload of the entry that Next returned last into buf,
// which has the entry's length. The entry's lane must be 0.
func (d *Reader) Payload(buf []byte) error {
	if d.err != nil {
		return d.err
	}
	if d.last.Place.Lane != 0 || len(buf) != d.unread {
		return fmt.Errorf("payload of record %d: %d bytes asked for, %d are next in the file", d.last.Number, len(buf), d.unread)
	}
	n, err := io.ReadFull(d.r, buf)
	if err != nil && len(buf) > 0 {
		return d.fail(d.last.Number, d.pos+int64(n), short(err, n, len(buf), "payload of "+d.last.String()))
	}
	d.pos += int64(n)
	d.unread = 0
	return nil
}

// End returns count, bytes and headers' checksum of what was read so far.
func (d *Reader) End() End { return d.end }

// Defect wraps an error about an entry with the entry's place.
func (d *Reader) Defect(e *Entry, err error) error {
	return &Error{File: d.o.Name, Record: e.Number, Offset: e.Offset, Err: err}
}

func (d *Reader) skip() error {
	if d.unread == 0 {
		return nil
	}
	n, err := io.CopyN(io.Discard, d.r, int64(d.unread))
	if err != nil {
		return d.fail(d.last.Number, d.pos+n, short(err, int(n), d.unread, "payload of "+d.last.String()))
	}
	d.pos += n
	d.unread = 0
	return nil
}

// admit checks an entry against what is known about the files around it.
func (d *Reader) admit(e *Entry) error {
	if d.o.Subsystems != nil && !slices.Contains(d.o.Subsystems, e.Subsystem) {
		return fmt.Errorf("%w: %s: the manifest does not list this subsystem", ErrFormat, e.Header)
	}
	if e.Place.Lane == 0 {
		if d.o.Size > 0 && int64(e.Length) > d.o.Size-d.pos {
			return fmt.Errorf("%w: %s has %d bytes of payload, the file has %d left", ErrTruncated, e.Header, e.Length, d.o.Size-d.pos)
		}
		return nil
	}
	if e.Place.Lane > len(d.o.Lanes) {
		return fmt.Errorf("%w: %s lies in lane %d, the image has %d", ErrFormat, e.Header, e.Place.Lane, len(d.o.Lanes))
	}
	if size := d.o.Lanes[e.Place.Lane-1]; e.Place.Offset+int64(e.Length) > size {
		return fmt.Errorf("%w: %s ends at %d in lane %d, whose file has %d bytes",
			ErrTruncated, e.Header, e.Place.Offset+int64(e.Length), e.Place.Lane, size)
	}
	return d.lanes.take(e)
}

// finish checks the end marker against what was read.
func (d *Reader) finish(end End, at int64) error {
	if end != d.end {
		return d.fail(-1, at, fmt.Errorf("%w: the end marker says %d records, %d bytes, headers %08x; read were %d, %d, %08x", ErrFormat,
			end.Records, end.Bytes, end.Headers, d.end.Records, d.end.Bytes, d.end.Headers))
	}
	if d.o.Size > 0 && d.pos != d.o.Size {
		return d.fail(-1, d.pos, fmt.Errorf("%w: %d bytes after the end marker", ErrFormat, d.o.Size-d.pos))
	}
	for i, size := range d.o.Lanes {
		if want := d.lanes.end(i + 1); size != want {
			return d.fail(-1, at, fmt.Errorf("%w: lane %d has %d bytes, its records end at %d", ErrFormat, i+1, size, want))
		}
	}
	d.err = io.EOF
	return io.EOF
}

func (d *Reader) fail(number, at int64, err error) error {
	d.err = &Error{File: d.o.Name, Record: number, Offset: at, Err: err}
	return d.err
}

// short turns an early end into ErrTruncated with the numbers.
func short(err error, got, want int, what string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %d of the %d bytes of the %s are there", ErrTruncated, got, want, what)
	}
	return err
}

// Record makes the record of an entry around its payload.
func (e *Entry) Record(payload []byte) *record.Record {
	return &record.Record{Header: e.Header, Sum: e.Sum, Payload: payload}
}
