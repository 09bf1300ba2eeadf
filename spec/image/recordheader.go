// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/io-mig/mig/spec/record"
)

// Marks of the 80-byte blocks of a state file.
const (
	markRecord = "MREC"
	markEnd    = "MEND"
)

// Place says where a payload lies. Lane 0 is the state file itself, directly
// after the record's header; Offset is then 0.
type Place struct {
	Lane   int
	Offset int64
}

// Entry is one record's header as stored.
//
// 80 bytes, all integers little-endian:
//
//	 0  4  "MREC"
//	 4  4  kind
//	 8  4  process
//	12  4  length of the payload in bytes
//	16  8  entity
//	24  4  CRC-32C of header and payload, record.Record.Sum
//	28  4  lane, 0: the payload follows this header
//	32  8  offset in the lane's file; 0 where lane is 0
//	40 32  subsystem, padded with zero bytes
//	72  4  zero
//	76  4  CRC-32C of bytes 0 to 75
type Entry struct {
	record.Header
	Sum    uint32
	Length int
	Place  Place
	// Number counts the records of the stream from 0, Offset is the header's
	// position in the state file. Both are the reader's, not stored.
	Number int64
	Offset int64
}

// Append appends the entry's 80 bytes to b. It does not check them: see Valid.
func (e *Entry) Append(b []byte) []byte {
	start := len(b)
	b = append(b, markRecord...)
	b = binary.LittleEndian.AppendUint32(b, e.Kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(e.Process))
	b = binary.LittleEndian.AppendUint32(b, uint32(e.Length))
	b = binary.LittleEndian.AppendUint64(b, e.Entity)
	b = binary.LittleEndian.AppendUint32(b, e.Sum)
	b = binary.LittleEndian.AppendUint32(b, uint32(e.Place.Lane))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Place.Offset))
	var name [record.MaxSubsystem + 4]byte
	copy(name[:record.MaxSubsystem], e.Subsystem)
	b = append(b, name[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// Valid checks the entry against the format's limits.
func (e *Entry) Valid() error {
	if err := validName(e.Subsystem); err != nil {
		return err
	}
	switch {
	case e.Kind == 0:
		return fmt.Errorf("%w: %s: kind 0 is reserved", ErrFormat, e.Header)
	case e.Length < 0 || e.Length > record.MaxPayload:
		return fmt.Errorf("%w: %s: payload of %d bytes, the limit is %d", ErrFormat, e.Header, e.Length, record.MaxPayload)
	case e.Place.Lane < 0 || e.Place.Lane > MaxLanes:
		return fmt.Errorf("%w: %s: lane %d, the limit is %d", ErrFormat, e.Header, e.Place.Lane, MaxLanes)
	case e.Place.Lane == 0 && e.Place.Offset != 0:
		return fmt.Errorf("%w: %s: offset %d without a lane", ErrFormat, e.Header, e.Place.Offset)
	case e.Place.Lane != 0 && (e.Length == 0 || e.Place.Offset < PageAlign || e.Place.Offset%PageAlign != 0 || e.Place.Offset > maxFile):
		return fmt.Errorf("%w: %s: %d bytes at offset %d of lane %d", ErrFormat, e.Header, e.Length, e.Place.Offset, e.Place.Lane)
	}
	return nil
}

// maxFile bounds offsets and sizes so that sums of them cannot overflow.
const maxFile = 1 << 60

// validName: 1 to 32 bytes of a-z, 0-9, '-', '_' and '.', so that a name can
// stand in a message as it is.
func validName(s string) error {
	if s == "" || len(s) > record.MaxSubsystem {
		return fmt.Errorf("%w: a subsystem's name has 1 to %d bytes, not %d", ErrFormat, record.MaxSubsystem, len(s))
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return fmt.Errorf("%w: byte %#02x in the name of a subsystem, %q", ErrFormat, c, s)
		}
	}
	return nil
}

// End is the block after the last record: what a whole stream has.
//
// 80 bytes, all integers little-endian:
//
//	 0  4  "MEND"
//	 4  4  CRC-32C over all record headers, in stream order
//	 8  8  number of records
//	16  8  sum of their payloads' lengths in bytes, lanes included
//	24 52  zero
//	76  4  CRC-32C of bytes 0 to 75
type End struct {
	Headers uint32
	Records uint64
	Bytes   uint64
}

// Append appends the marker's 80 bytes to b.
func (e End) Append(b []byte) []byte {
	start := len(b)
	b = append(b, markEnd...)
	b = binary.LittleEndian.AppendUint32(b, e.Headers)
	b = binary.LittleEndian.AppendUint64(b, e.Records)
	b = binary.LittleEndian.AppendUint64(b, e.Bytes)
	b = append(b, make([]byte, 52)...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// DecodeBlock reads one 80-byte block: a record's header, or the end marker,
// in which case end is not nil.
func DecodeBlock(b []byte) (entry Entry, end *End, err error) {
	if len(b) < RecordHeaderSize {
		return entry, nil, fmt.Errorf("%w: %d bytes, a record header has %d", ErrTruncated, len(b), RecordHeaderSize)
	}
	b = b[:RecordHeaderSize]
	if got, want := crc32.Checksum(b[:76], castagnoli), binary.LittleEndian.Uint32(b[76:]); got != want {
		return entry, nil, fmt.Errorf("record header: %w: stored %08x, computed %08x", ErrChecksum, want, got)
	}
	switch string(b[:4]) {
	case markRecord:
		entry, err = decodeEntry(b)
		return entry, nil, err
	case markEnd:
		end, err = decodeEnd(b)
		return entry, end, err
	}
	return entry, nil, fmt.Errorf("%w: neither a record nor the end marker: % x", ErrFormat, b[:4])
}

func decodeEntry(b []byte) (Entry, error) {
	name := b[40:72]
	length := bytes.IndexByte(name, 0)
	if length < 0 {
		length = len(name)
	}
	if !zero(name[length:]) || !zero(b[72:76]) {
		return Entry{}, fmt.Errorf("%w: bytes that must be zero are not", ErrFormat)
	}
	offset, lane := binary.LittleEndian.Uint64(b[32:]), binary.LittleEndian.Uint32(b[28:])
	size := binary.LittleEndian.Uint32(b[12:])
	if offset > maxFile || lane > MaxLanes || size > record.MaxPayload {
		return Entry{}, fmt.Errorf("%w: %d bytes at offset %d of lane %d", ErrFormat, size, offset, lane)
	}
	e := Entry{
		Header: record.Header{
			Subsystem: string(name[:length]),
			Process:   record.ProcessID(binary.LittleEndian.Uint32(b[8:])),
			Entity:    binary.LittleEndian.Uint64(b[16:]),
			Kind:      binary.LittleEndian.Uint32(b[4:]),
		},
		Sum:    binary.LittleEndian.Uint32(b[24:]),
		Length: int(size),
		Place:  Place{Lane: int(lane), Offset: int64(offset)},
	}
	return e, e.Valid()
}

func decodeEnd(b []byte) (*End, error) {
	if !zero(b[24:76]) {
		return nil, fmt.Errorf("%w: bytes of the end marker that must be zero are not", ErrFormat)
	}
	return &End{
		Headers: binary.LittleEndian.Uint32(b[4:]),
		Records: binary.LittleEndian.Uint64(b[8:]),
		Bytes:   binary.LittleEndian.Uint64(b[16:]),
	}, nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
