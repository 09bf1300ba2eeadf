// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"hash/crc32"
	"io"

	"github.com/io-mig/mig/spec/record"
)

// Writer writes a state file: the stream of records. It is for one goroutine
// at a time. A write error is final: every later call returns it.
type Writer struct {
	w     io.Writer
	end   End
	lanes lanes
	block []byte
	err   error
}

// NewWriter writes the file header to w.
func NewWriter(w io.Writer) (*Writer, error) {
	h := FileHeader{Major: Major, Minor: Minor, Kind: KindState}
	if _, err := w.Write(h.Append(nil)); err != nil {
		return nil, err
	}
	return &Writer{w: w, block: make([]byte, 0, RecordHeaderSize)}, nil
}

// Append writes a sealed record with its payload.
func (w *Writer) Append(r *record.Record) error {
	if err := w.header(r, Place{}); err != nil {
		return err
	}
	if _, err := w.w.Write(r.Payload); err != nil {
		w.err = err
	}
	return w.err
}

// Refer writes the header of a sealed record whose payload lies elsewhere.
func (w *Writer) Refer(r *record.Record, at Place) error {
	if at.Lane == 0 {
		return fmt.Errorf("%w: a reference needs a lane", ErrFormat)
	}
	return w.header(r, at)
}

// End returns the marker for the records written so far; it writes nothing.
func (w *Writer) End() End { return w.end }

// Close writes the end marker. It does not close the underlying writer.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	_, w.err = w.w.Write(w.end.Append(w.block[:0]))
	if w.err != nil {
		return w.err
	}
	w.err = fmt.Errorf("%w: a record after the end marker", ErrFormat)
	return nil
}

func (w *Writer) header(r *record.Record, at Place) error {
	if w.err != nil {
		return w.err
	}
	e := Entry{Header: r.Header, Sum: r.Sum, Length: len(r.Payload), Place: at}
	if err := e.Valid(); err != nil {
		return err
	}
	if err := w.lanes.take(&e); err != nil {
		return err
	}
	w.block = e.Append(w.block[:0])
	if _, err := w.w.Write(w.block); err != nil {
		w.err = err
		return err
	}
	w.end.add(w.block, e.Length)
	return nil
}

func (e *End) add(block []byte, length int) {
	e.Headers = crc32.Update(e.Headers, castagnoli, block)
	e.Records++
	e.Bytes += uint64(length)
}

// lanes holds, for every lane, the offset at which its next payload belongs.
// Lanes are dense but for alignment: payloads follow each other in stream
// order, each at its Start. So no two records can share bytes, and a whole
// image is bounded by the sizes of its files.
type lanes [MaxLanes + 1]int64

// Align rounds a position in a pages file up to where a payload may start.
func Align(n int64) int64 { return (n + PageAlign - 1) &^ (PageAlign - 1) }

// Start is where a payload of length bytes starts in a pages file whose
// payloads so far end at n.
func Start(n int64, length int) int64 {
	n = max(Align(n), PageAlign)
	if length > 0 && length%BigAlign == 0 {
		n = (n + BigAlign - 1) &^ (BigAlign - 1)
	}
	return n
}

// end is where a lane's file ends.
func (l *lanes) end(lane int) int64 { return max(l[lane], PageAlign) }

func (l *lanes) take(e *Entry) error {
	if e.Place.Lane == 0 {
		return nil
	}
	if want := Start(l[e.Place.Lane], e.Length); e.Place.Offset != want {
		return fmt.Errorf("%w: %s: offset %d of lane %d, expected %d", ErrFormat, e.Header, e.Place.Offset, e.Place.Lane, want)
	}
	l[e.Place.Lane] = Align(e.Place.Offset + int64(e.Length))
	return nil
}
