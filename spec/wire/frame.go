// SPDX-License-Identifier: Apache-2.0

// Package wire is the format of what passes between two hosts: frames.
//
// A stream has one or more connections with the same two ends. The side that
// exports sends records on any of them; everything else goes over the first.
//
//	exporter                                importer
//	Hello on every connection      ->
//	Manifest                       ->
//	Record, on any connection      ->
//	                               <-       Credit, as records are released
//	Flush                          ->
//	                               <-       Ack, when all before it are released
//	Bye                            ->
//	                               <-       Bye
//
// A connection that ends without Bye was cut off.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

// Type says what a frame is. All integers are little-endian.
type Type uint8

// The frames.
const (
	// Hello starts every connection. 16 bytes:
	//	 0  4  "MIGW"
	//	 4  2  major version
	//	 6  2  minor version
	//	 8  2  number of this connection, from 0
	//	10  2  number of connections
	//	12  4  zero
	Hello Type = 1
	// Manifest is the stream's manifest, image.Manifest's JSON.
	Manifest Type = 2
	// Record is one record. 88 bytes and the payload:
	//	 0  8  sequence number, from 0 without gaps over all connections
	//	 8 80  record header as in an image (image.Entry) with lane 0
	//	88     payload
	// On one connection the sequence numbers rise. The frame's length and its
	// record overhead count against the window (Credit).
	Record Type = 3
	// Credit is 8 bytes: the bytes of window that were given back since the
	// stream began. The exporter may have Window bytes more than that under
	// way, each record counted as its payload and RecordOverhead.
	Credit Type = 4
	// Flush is 8 bytes: the number of records before it.
	Flush Type = 5
	// Ack is 8 bytes: that many records were released, from the first.
	Ack Type = 6
	// Bye is empty: everything was sent, flushed and received.
	Bye Type = 7
	// Failure is UTF-8 text of at most MaxText bytes: why the sender gives up.
	Failure Type = 8
)

// Sizes and limits, in bytes.
const (
	// HeaderSize is the length of a frame's header:
	//	 0  1  type
	//	 1  3  zero
	//	 4  4  length of what follows the header
	//	 8  4  CRC-32C of bytes 0 to 7
	HeaderSize = 12
	HelloSize  = 16
	// RecordHead is what a Record frame holds before the payload.
	RecordHead = 8 + image.RecordHeaderSize
	// RecordOverhead is what a record costs of the window beside its payload.
	RecordOverhead = 256
	// Window that the importer grants at the start.
	Window = 64 << 20
	// MaxText bounds the text of a Failure.
	MaxText = 4096
	// MaxConnections of one stream.
	MaxConnections = 64
)

// The version of the protocol. Peers must agree on the major version.
const (
	Major = 1
	Minor = 0
)

const helloMagic = "MIGW"

// ErrProtocol is what every error of a decoder wraps.
var ErrProtocol = errors.New("protocol error")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendHeader appends the header of a frame with n bytes.
func AppendHeader(b []byte, t Type, n int) []byte {
	start := len(b)
	b = append(b, byte(t), 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// AppendNumber appends a whole Credit, Flush or Ack frame.
func AppendNumber(b []byte, t Type, n uint64) []byte {
	return binary.LittleEndian.AppendUint64(AppendHeader(b, t, 8), n)
}

// DecodeHeader reads a frame's header. The length is within the type's limits.
func DecodeHeader(b []byte) (t Type, n int, err error) {
	if len(b) < HeaderSize {
		return 0, 0, fmt.Errorf("%w: a frame header of %d bytes", ErrProtocol, len(b))
	}
	if got, want := crc32.Checksum(b[:8], castagnoli), binary.LittleEndian.Uint32(b[8:]); got != want {
		return 0, 0, fmt.Errorf("%w: frame header % x: its checksum is %08x, its bytes give %08x: is the peer a mig?", ErrProtocol, b[:HeaderSize], want, got)
	}
	t, size := Type(b[0]), binary.LittleEndian.Uint32(b[4:])
	low, high := limits(t)
	if b[1]|b[2]|b[3] != 0 || high < 0 {
		return 0, 0, fmt.Errorf("%w: unknown frame type %d", ErrProtocol, t)
	}
	if int64(size) < int64(low) || int64(size) > int64(high) {
		return 0, 0, fmt.Errorf("%w: a frame of type %d with %d bytes, allowed are %d to %d", ErrProtocol, t, size, low, high)
	}
	return t, int(size), nil
}

// limits of a frame's length; high is -1 for an unknown type.
func limits(t Type) (low, high int) {
	switch t {
	case Hello:
		return HelloSize, HelloSize
	case Manifest:
		return 0, image.MaxManifest
	case Record:
		return RecordHead, RecordHead + record.MaxPayload
	case Credit, Flush, Ack:
		return 8, 8
	case Bye:
		return 0, 0
	case Failure:
		return 0, MaxText
	}
	return 0, -1
}

// AppendHello appends a whole Hello frame.
func AppendHello(b []byte, index, count int) []byte {
	b = append(AppendHeader(b, Hello, HelloSize), helloMagic...)
	b = binary.LittleEndian.AppendUint16(b, Major)
	b = binary.LittleEndian.AppendUint16(b, Minor)
	b = binary.LittleEndian.AppendUint16(b, uint16(index))
	b = binary.LittleEndian.AppendUint16(b, uint16(count))
	return append(b, 0, 0, 0, 0)
}

// DecodeHello reads the 16 bytes of a Hello.
func DecodeHello(b []byte) (index, count int, err error) {
	if len(b) != HelloSize || string(b[:4]) != helloMagic {
		return 0, 0, fmt.Errorf("%w: no hello: % x", ErrProtocol, b[:min(len(b), HelloSize)])
	}
	if major := binary.LittleEndian.Uint16(b[4:]); major != Major {
		return 0, 0, fmt.Errorf("%w: the peer speaks version %d.%d, this mig %d.%d: use releases of the same major version",
			ErrProtocol, major, binary.LittleEndian.Uint16(b[6:]), Major, Minor)
	}
	index, count = int(binary.LittleEndian.Uint16(b[8:])), int(binary.LittleEndian.Uint16(b[10:]))
	if count < 1 || count > MaxConnections || index >= count || binary.LittleEndian.Uint32(b[12:]) != 0 {
		return 0, 0, fmt.Errorf("%w: hello of connection %d of %d", ErrProtocol, index, count)
	}
	return index, count, nil
}

// AppendRecord appends a Record frame up to where the payload follows.
func AppendRecord(b []byte, seq uint64, r *record.Record) []byte {
	b = AppendHeader(b, Record, RecordHead+len(r.Payload))
	b = binary.LittleEndian.AppendUint64(b, seq)
	e := image.Entry{Header: r.Header, Sum: r.Sum, Length: len(r.Payload)}
	return e.Append(b)
}

// DecodeRecord reads the RecordHead bytes of a Record frame with n bytes.
func DecodeRecord(b []byte, n int) (seq uint64, e image.Entry, err error) {
	e, end, err := image.DecodeBlock(b[8:RecordHead])
	if err == nil && (end != nil || e.Place.Lane != 0 || e.Length != n-RecordHead) {
		err = fmt.Errorf("a frame of %d bytes with %s of %d bytes in lane %d", n, e.Header, e.Length, e.Place.Lane)
	}
	if err != nil {
		return 0, e, fmt.Errorf("%w: record: %w", ErrProtocol, err)
	}
	return binary.LittleEndian.Uint64(b), e, nil
}
