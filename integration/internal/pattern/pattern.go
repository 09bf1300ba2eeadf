// SPDX-License-Identifier: Apache-2.0

// Package pattern is a stream of bytes that both ends of a connection know, and
// that repeats itself nowhere near.
package pattern

import (
	"encoding/binary"
	"fmt"
)

// Stream reads the pattern from its begin.
type Stream struct{ at uint64 }

// Read fills b.
func (s *Stream) Read(b []byte) (int, error) {
	for i := 0; i < len(b); {
		word := s.word()
		for at := s.at % 8; at < 8 && i < len(b); at++ {
			b[i] = word[at]
			i++
			s.at++
		}
	}
	return len(b), nil
}

// word are the eight bytes around at.
func (s *Stream) word() (b [8]byte) {
	binary.LittleEndian.PutUint64(b[:], (s.at/8+1)*0x9e3779b97f4a7c15)
	return b
}

// Checker is an io.Writer that fails where what is written is not the pattern.
type Checker struct {
	want Stream
	buf  []byte
}

// Write compares.
func (c *Checker) Write(b []byte) (int, error) {
	if len(c.buf) < len(b) {
		c.buf = make([]byte, len(b))
	}
	begin := c.want.at
	want := c.buf[:len(b)]
	_, _ = c.want.Read(want)
	for i := range b {
		if b[i] != want[i] {
			return i, fmt.Errorf("byte %d of the stream is %#x, want %#x", begin+uint64(i), b[i], want[i])
		}
	}
	return len(b), nil
}
