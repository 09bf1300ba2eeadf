// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

// AppendRecord appends a Record frame up to where the payload follows.
func AppendRecord(b []byte, seq uint64, r *record.Record) []byte {
	return appendRecord(b, Record, seq, r, len(r.Payload))
}

// AppendPulled appends a Pulled frame up to where the payload follows.
func AppendPulled(b []byte, number uint64, r *record.Record) []byte {
	return appendRecord(b, Pulled, number, r, len(r.Payload))
}

// AppendCompressed appends a Compressed frame up to where n bytes of zstd follow.
func AppendCompressed(b []byte, seq uint64, r *record.Record, n int) []byte {
	return appendRecord(b, Compressed, seq, r, n)
}

func appendRecord(b []byte, t Type, number uint64, r *record.Record, n int) []byte {
	b = AppendHeader(b, t, RecordHead+n)
	b = binary.LittleEndian.AppendUint64(b, number)
	e := image.Entry{Header: r.Header, Sum: r.Sum, Length: len(r.Payload)}
	return e.Append(b)
}

// DecodeRecord reads the RecordHead bytes of a Record or Pulled frame with n
// bytes.
func DecodeRecord(b []byte, n int) (number uint64, e image.Entry, err error) {
	number, e, err = decodeRecord(b)
	if err == nil && e.Length != n-RecordHead {
		err = fmt.Errorf("%w: record: a frame of %d bytes with %s of %d bytes", ErrProtocol, n, e.Header, e.Length)
	}
	return number, e, err
}

// DecodeCompressed reads the RecordHead bytes of a Compressed frame with n
// bytes. What is not shorter than its payload is not compressed.
func DecodeCompressed(b []byte, n int) (number uint64, e image.Entry, err error) {
	number, e, err = decodeRecord(b)
	if err == nil && e.Length <= n-RecordHead {
		err = fmt.Errorf("%w: record: a compressed frame of %d bytes with %s of %d bytes", ErrProtocol, n, e.Header, e.Length)
	}
	return number, e, err
}

func decodeRecord(b []byte) (number uint64, e image.Entry, err error) {
	e, end, err := image.DecodeBlock(b[8:RecordHead])
	if err == nil && (end != nil || e.Place.Lane != 0) {
		err = fmt.Errorf("%s in lane %d", e.Header, e.Place.Lane)
	}
	if err != nil {
		return 0, e, fmt.Errorf("%w: record: %w", ErrProtocol, err)
	}
	return binary.LittleEndian.Uint64(b), e, nil
}
