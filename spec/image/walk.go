// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"io"
)

// Walk calls fn for the header of every record, in stream order, without
// reading payloads. It ends with the first error, fn's or the stream's.
func Walk(d *Reader, fn func(Entry) error) error {
	for {
		e, err := d.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}

// Verify reads every payload and checks its checksum. Payloads of lane n are
// read from lanes[n-1]. fn, if not nil, hears of every record: err is nil or
// the record's damage, as *Error. Verify goes on after a damaged payload and
// returns the first damage; damage to the stream itself ends it.
func Verify(d *Reader, lanes []io.ReaderAt, fn func(e Entry, err error)) error {
	var first error
	var buf []byte
	err := Walk(d, func(e Entry) error {
		if cap(buf) < e.Length {
			buf = make([]byte, e.Length, max(e.Length, 1<<20))
		}
		buf = buf[:e.Length]
		if e.Place.Lane == 0 {
			if err := d.Payload(buf); err != nil {
				return err
			}
		} else if e.Place.Lane > len(lanes) {
			return d.Defect(&e, fmt.Errorf("%w: lane %d of %d", ErrFormat, e.Place.Lane, len(lanes)))
		} else if err := ReadLane(lanes[e.Place.Lane-1], &e, buf); err != nil {
			return d.Defect(&e, err)
		}
		damage := e.Record(buf).Verify()
		if damage != nil {
			damage = d.Defect(&e, fmt.Errorf("%w: %w", ErrChecksum, damage))
			if first == nil {
				first = damage
			}
		}
		if fn != nil {
			fn(e, damage)
		}
		return nil
	})
	if first != nil {
		return first
	}
	return err
}

// ReadLane reads an entry's payload from its lane into buf, which has the
// entry's length.
func ReadLane(lane io.ReaderAt, e *Entry, buf []byte) error {
	n, err := lane.ReadAt(buf, e.Place.Offset)
	if n == len(buf) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = ErrTruncated
	}
	return fmt.Errorf("%w: %s: %d of %d bytes at offset %d of lane %d", err, e.Header, n, len(buf), e.Place.Offset, e.Place.Lane)
}
