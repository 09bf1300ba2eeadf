// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
)

// Token names one move on both hosts. It is no secret: both ends are
// authenticated by their certificates.
type Token [16]byte

// NewToken is a random token.
func NewToken() Token {
	var t Token
	_, _ = rand.Read(t[:]) // never fails, see its documentation
	return t
}

// ParseToken reads 32 hexadecimal digits.
func ParseToken(s string) (Token, error) {
	var t Token
	if len(s) != 2*len(t) {
		return t, fmt.Errorf("token %.40q: want %d hexadecimal digits", s, 2*len(t))
	}
	if _, err := hex.Decode(t[:], []byte(s)); err != nil {
		return t, fmt.Errorf("token %q: %w", s, err)
	}
	return t, nil
}

// String is the token's 32 hexadecimal digits.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// Purpose is what a connection is for.
type Purpose uint8

// The purposes.
const (
	// Control: mig and migd talk about a move.
	Control Purpose = 1
	// Data: records of a move, see the frames of this package.
	Data Purpose = 2
	// Urgent: pulls of a copy that runs already, see Pull.
	Urgent Purpose = 3
	// Resolve: a source that was cut off asks what became of its copy.
	Resolve Purpose = 4
)

func (p Purpose) String() string {
	switch p {
	case Control:
		return "control"
	case Data:
		return "data"
	case Urgent:
		return "urgent"
	case Resolve:
		return "resolve"
	}
	return fmt.Sprintf("purpose %d", uint8(p))
}

// PreambleSize is the length of a Preamble, in bytes.
const PreambleSize = 32

// PreambleVersion of this release.
const PreambleVersion = 1

const preambleMagic = "MIGP"

// Preamble starts every TCP connection, before TLS and in the clear, so that
// the daemon can hand the bare connection to the engine that it belongs to:
//
//	 0  4  "MIGP"
//	 4  2  version of the preamble, little-endian
//	 6  1  purpose
//	 7  1  zero
//	 8 16  token
//	24  4  zero
//	28  4  CRC-32C of bytes 0 to 27, little-endian
//
// Nothing in it is trusted: the token comes again inside of TLS (Hello).
type Preamble struct {
	Purpose Purpose
	Token   Token
}

// Append appends the preamble's bytes.
func (p Preamble) Append(b []byte) []byte {
	start := len(b)
	b = append(b, preambleMagic...)
	b = binary.LittleEndian.AppendUint16(b, PreambleVersion)
	b = append(b, byte(p.Purpose), 0)
	b = append(b, p.Token[:]...)
	b = append(b, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// DecodePreamble reads PreambleSize bytes.
func DecodePreamble(b []byte) (Preamble, error) {
	var p Preamble
	if len(b) != PreambleSize || string(b[:4]) != preambleMagic {
		return p, fmt.Errorf("%w: no preamble: % x: is the peer a mig?", ErrProtocol, b[:min(len(b), PreambleSize)])
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != PreambleVersion {
		return p, fmt.Errorf("%w: the peer's preamble has version %d, this mig knows %d: use releases that belong together", ErrProtocol, v, PreambleVersion)
	}
	if got, want := crc32.Checksum(b[:28], castagnoli), binary.LittleEndian.Uint32(b[28:]); got != want {
		return p, fmt.Errorf("%w: damaged preamble: % x", ErrProtocol, b)
	}
	p.Purpose = Purpose(b[6])
	copy(p.Token[:], b[8:24])
	if p.Purpose < Control || p.Purpose > Resolve || b[7] != 0 || binary.LittleEndian.Uint32(b[24:]) != 0 {
		return p, fmt.Errorf("%w: preamble with %s: % x", ErrProtocol, p.Purpose, b)
	}
	return p, nil
}

// ReadPreamble reads exactly the preamble from a connection.
func ReadPreamble(r io.Reader) (Preamble, error) {
	var b [PreambleSize]byte
	if n, err := io.ReadFull(r, b[:]); err != nil {
		return Preamble{}, fmt.Errorf("after %d bytes of a preamble: %w", n, err)
	}
	return DecodePreamble(b[:])
}
