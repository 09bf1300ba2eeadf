// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"io"
	"strings"
)

// NewReader makes a reader for Read, which holds at most one line.
func NewReader(c io.Reader) *bufio.Reader {
	return bufio.NewReaderSize(c, MaxLine)
}

// Read reads one line. A longer one than is allowed is an error.
func Read(in *bufio.Reader) (Line, error) {
	b, err := in.ReadSlice('\n')
	if err != nil {
		return Line{}, err
	}
	return Parse(strings.TrimSuffix(string(b), "\n"))
}

// Clip shortens a reason to what fits into a line even if all of it is escaped.
func Clip(s string) string {
	const limit = 1000
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return s
}
