// SPDX-License-Identifier: Apache-2.0

// Package wire is the format of what passes between two hosts: frames.
//
// A TCP connection starts with a Preamble in the clear, behind it comes TLS,
// and in TLS come frames. A stream has one or more data connections with the
// same two ends. The side that exports sends records on any of them; everything
// else goes over the first.
//
//	exporter                                importer
//	Hello on every connection      ->
//	Manifest                       ->
//	Record, on any connection      ->
//	                               <-       Credit, as records are released
//	Flush                          ->
//	                               <-       Ack, when all before it are released
//	Command                       <->       Command
//	Answer                        <->       Answer
//	Bye                            ->
//	                               <-       Bye
//
// A connection that ends without Bye was cut off.
//
// An urgent connection carries what a copy that runs already waits for. It may
// be replaced by a new one at any time; what was not answered is asked again.
//
//	exporter                                importer
//	Hello                          ->
//	                               <-       Pull, any number at a time
//	Pulled or Answer (a failure)   ->
//
// A move talks through one-way commands to "control", see package handover:
//
//	importer: PREPARED (its frame stands), READY, RUNNING, ABORTED, LOST
//	exporter: COMMIT, ABORT
//
// What a release adds to the records of a subsystem is sent to an importer that has
// asked for it, by a command to the subsystem that an older exporter answers with a
// failure: "memory" has "repeats".
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
	// Hello starts every connection. 32 bytes:
	//	 0  4  "MIGW"
	//	 4  2  major version
	//	 6  2  minor version
	//	 8  2  number of this connection, from 0
	//	10  2  number of connections
	//	12  1  purpose: Data, Urgent or Resolve
	//	13  3  zero
	//	16 16  token of the move
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
	// Command is for the other side's peer of a subsystem, or for its control:
	//	 0  8  number that the answer names, 0: none is wanted
	//	 8  1  length of the receiver's name
	//	 9  1  length of the verb
	//	10  2  zero
	//	12     receiver, verb, body
	Command Type = 9
	// Answer is the answer to a Command, or a failed Pull:
	//	 0  8  number
	//	 8  1  1 if it failed: then the body is UTF-8 text
	//	 9  3  zero
	//	12     body
	Answer Type = 10
	// Pull asks for a piece of state out of turn:
	//	 0  8  number that the answer names
	//	 8  4  process
	//	12  4  length that is wanted, in the subsystem's units
	//	16  8  entity
	//	24     name of the subsystem
	Pull Type = 11
	// Pulled is a record as in Record, with the number of the Pull in the place of
	// the sequence number.
	Pulled Type = 12
	// Compressed is a record as in Record, but that the payload is one zstd frame
	// (RFC 8878) which gives the length that the record header names. It counts
	// against the window as if it was not compressed.
	Compressed Type = 13
)

// Sizes and limits, in bytes.
const (
	// HeaderSize is the length of a frame's header:
	//	 0  1  type
	//	 1  3  zero
	//	 4  4  length of what follows the header
	//	 8  4  CRC-32C of bytes 0 to 7
	HeaderSize = 12
	HelloSize  = 32
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
	// CommandHead is what a Command or an Answer holds at least, MaxBody bounds
	// their bodies.
	CommandHead = 12
	MaxBody     = 1 << 20
	// maxName bounds a receiver and a verb.
	maxName = 64
	// PullHead is what a Pull holds before the name.
	PullHead = 24
)

// The version of the protocol. Peers must agree on the major version.
const (
	Major = 1
	Minor = 0
)

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
	case Command:
		return CommandHead, CommandHead + 2*maxName + MaxBody
	case Answer:
		return CommandHead, CommandHead + MaxBody
	case Pull:
		return PullHead + 1, PullHead + record.MaxSubsystem
	case Pulled:
		return RecordHead, RecordHead + record.MaxPayload
	case Compressed:
		return RecordHead + 1, RecordHead + record.MaxPayload
	}
	return 0, -1
}
